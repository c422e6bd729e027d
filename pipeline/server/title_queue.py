"""The queue for titles: one worker titles several waiting requests at once. A full queue rejects new requests."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.registry.fallback_title import Shown

_log = logging.getLogger(__name__)


class WrittenTitles(NamedTuple):
    """Titles in the order of the texts, and the version that wrote them as NAME/NUMBER."""

    version: str
    titles: list[Shown]


WriteTitles = Callable[[list[str]], WrittenTitles]


class QueueFull(Exception):
    """The queue has no room for another request. `seconds`: when to retry."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Queue full; retry in {seconds} s.")
        self.seconds = seconds


@dataclass(eq=False)
class _Request:
    """The texts of a request, and the titles written so far, all by one version.

    result: cancelled if the client gives up. It is set to running only when all titles are there, because a running
        future cannot be cancelled.
    """

    texts: Sequence[str]
    result: Future[WrittenTitles] = field(default_factory=Future)
    titles: list[Shown] = field(default_factory=list)
    version: str = ""

    def next_texts(self, most: int) -> Sequence[str]:
        """Return the next texts without titles, at most `most`."""
        return self.texts[len(self.titles) :][:most]

    def add(self, version: str, titles: Sequence[Shown]) -> None:
        """Add the titles of the next texts. If the version has changed, drop all titles and start over."""
        if self.titles and version != self.version:
            self.titles.clear()
            return
        self.version = version
        self.titles += titles
        if not self.next_texts(1) and self.result.set_running_or_notify_cancel():
            self.result.set_result(WrittenTitles(version, self.titles))

    def fail(self, error: Exception) -> None:
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)


class TitleQueue:
    """Titles requests in the order of their arrival. Cancelled requests take no room in the queue.

    Args:
        write_titles: writes titles for texts.
        waiting: most waiting requests.
        batch: most texts titled at once, from several requests if the first has fewer.
    """

    def __init__(self, write_titles: WriteTitles, *, waiting: int, batch: int) -> None:
        self._write_titles = write_titles
        self._most_waiting = waiting
        self._batch = batch
        self._requests: deque[_Request] = deque()
        self._changed = threading.Condition()  # guards _requests and _closing
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="titles", daemon=True)
        self._seconds_per_request = 1.0

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        with self._changed:
            return len(_unfinished(self._requests))

    def open(self) -> None:
        """Start the worker."""
        self._worker.start()

    def close(self) -> None:
        """Finish the current batch, then cancel all waiting requests."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.join()
        for request in self._requests:
            request.result.cancel()

    def submit(self, texts: Sequence[str]) -> Future[WrittenTitles]:
        """Queue a request for titles. If the queue is closing, the returned future is cancelled.

        Raises:
            QueueFull: the queue has no room.
        """
        request = _Request(texts)
        with self._changed:
            if self._closing:
                request.result.cancel()
                return request.result
            self._requests = deque(_unfinished(self._requests))
            if len(self._requests) >= self._most_waiting:
                raise QueueFull(max(1, round(len(self._requests) * self._seconds_per_request)))
            self._requests.append(request)
            self._changed.notify_all()
        return request.result

    def _work(self) -> None:
        while requests := self._wait_for_requests():
            self._title(requests)

    def _wait_for_requests(self) -> list[_Request]:
        """Wait for requests and take the first ones, up to a batch of texts; none if the queue is closing."""
        with self._changed:
            while not self._closing:
                taken: list[_Request] = []
                texts = 0
                while self._requests and texts < self._batch:
                    request = self._requests.popleft()
                    if not request.result.done():
                        taken.append(request)
                        texts += len(request.texts)
                if taken:
                    return taken
                self._changed.wait()
            return []

    def _title(self, requests: list[_Request]) -> None:
        """Title requests batch by batch, so that a request cancelled meanwhile costs one batch at most."""
        start, count = time.monotonic(), len(requests)
        while requests := _unfinished(requests):
            self._title_batch(requests)
        self._seconds_per_request = (time.monotonic() - start) / count

    def _title_batch(self, requests: Sequence[_Request]) -> None:
        batch: list[tuple[_Request, Sequence[str]]] = []
        room = self._batch
        for request in requests:
            if room:
                batch.append((request, request.next_texts(room)))
                room -= len(batch[-1][1])
        try:
            version, titles = self._write_titles([text for _, texts in batch for text in texts])
        except Exception as error:  # any error of a model; other requests may succeed
            _log.exception("%d requests failed", len(batch))
            for request, _ in batch:
                request.fail(error)
            return
        written = iter(titles)
        for request, texts in batch:
            request.add(version, [next(written) for _ in texts])


def _unfinished(requests: Iterable[_Request]) -> list[_Request]:
    """Return the requests that still need titles: neither cancelled nor finished."""
    return [request for request in requests if not request.result.done()]
