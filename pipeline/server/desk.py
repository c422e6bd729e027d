"""The queue of the server: requests wait here, one worker takes several at once, and too many are turned away."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.registry.stand_in import Shown

_log = logging.getLogger(__name__)

_LOOKS_UP = 0.2  # seconds after which a worker without work sees whether it is to end


class Answer(NamedTuple):
    version: str
    titles: list[Shown]


@dataclass(eq=False)
class Job:
    """One request's texts, and what is written of their titles, all of it by one version.

    done: what whoever gives up on it cancels. It begins to run when all is written, for what runs cannot be cancelled.
    """

    texts: Sequence[str]
    done: Future[Answer] = field(default_factory=Future)
    titles: list[Shown] = field(default_factory=list)
    version: str = ""

    def left(self, most: int) -> Sequence[str]:
        """The next `most` of the texts that have no titles yet."""
        return self.texts[len(self.titles) :][:most]

    def take(self, version: str, titles: Sequence[Shown]) -> None:
        """The titles of the next texts; by another version than those before, they and those count for nothing."""
        if self.titles and version != self.version:
            self.titles.clear()
            return
        self.version = version
        self.titles += titles
        if not self.left(1) and self.done.set_running_or_notify_cancel():
            self.done.set_result(Answer(version, self.titles))

    def fail(self, error: Exception) -> None:
        if self.done.set_running_or_notify_cancel():
            self.done.set_exception(error)


class Full(Exception):
    """As many wait as may. `seconds`: after which it is worth to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"as many requests wait as may; come back in {seconds} s")
        self.seconds = seconds


Write = Callable[[list[str]], Answer]


class Desk:
    """Takes jobs and has them done, in the order in which they came.

    Args:
        write: titles for texts.
        waiting: jobs that may wait.
        batch: texts that are written at once, of several jobs if the first has fewer.
    """

    def __init__(self, write: Write, *, waiting: int, batch: int) -> None:
        self._write = write
        self._batch = batch
        self._jobs: queue.Queue[Job] = queue.Queue(maxsize=waiting)
        self._ending = threading.Event()
        self._worker = threading.Thread(target=self._work, name="titles", daemon=True)
        self._seconds_a_job = 1.0

    @property
    def waiting(self) -> int:
        return self._jobs.qsize()

    def open(self) -> None:
        self._worker.start()

    def close(self) -> None:
        """Returns once what is being written is written; who still waits is told that nothing comes."""
        self._ending.set()
        self._worker.join()
        for job in self._rest(None):
            job.done.cancel()

    def submit(self, texts: Sequence[str]) -> Future[Answer]:
        """What is cancelled already once the desk closes: nobody would do it.

        Raises:
            Full: too many wait already.
        """
        job = Job(texts)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise Full(max(1, round(self._jobs.qsize() * self._seconds_a_job))) from None
        if self._ending.is_set():  # looked at last: whoever closes meanwhile cancels what it finds in the queue
            job.done.cancel()
        return job.done

    def _work(self) -> None:
        while not self._ending.is_set():
            try:
                first = self._jobs.get(timeout=_LOOKS_UP)
            except queue.Empty:
                continue
            if jobs := _still_wanted([first, *self._rest(self._batch - len(first.texts))]):
                self._do(jobs)

    def _rest(self, texts: int | None) -> list[Job]:
        """What waits besides, until there are so many `texts`; everything where that is None."""
        found: list[Job] = []
        while texts is None or texts > 0:
            try:
                found.append(self._jobs.get_nowait())
            except queue.Empty:
                break
            if texts is not None:
                texts -= len(found[-1].texts)
        return found

    def _do(self, jobs: list[Job]) -> None:
        """Part by part: of what somebody gives up on meanwhile, no more is written than the part at hand."""
        start, many = time.monotonic(), len(jobs)
        while jobs := _still_wanted(jobs):
            self._do_part(jobs)
        self._seconds_a_job = (time.monotonic() - start) / many

    def _do_part(self, jobs: Sequence[Job]) -> None:
        part: list[tuple[Job, Sequence[str]]] = []
        room = self._batch
        for job in jobs:
            if room:
                part.append((job, job.left(room)))
                room -= len(part[-1][1])
        try:
            version, titles = self._write([text for _, texts in part for text in texts])
        except Exception as error:  # whatever a model raises: the next request may be better off
            _log.exception("%d requests failed", len(part))
            for job, _ in part:
                job.fail(error)
            return
        written = iter(titles)
        for job, texts in part:
            job.take(version, [next(written) for _ in texts])


def _still_wanted(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if not job.done.done()]
