"""The queue of the server: requests wait here, one worker takes several at once, and too many are turned away."""

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
    """Takes jobs and has them done, in the order in which they came. Jobs that are cancelled take up no place.

    Args:
        write: titles for texts.
        waiting: jobs that may wait.
        batch: texts that are written at once, of several jobs if the first has fewer.
    """

    def __init__(self, write: Write, *, waiting: int, batch: int) -> None:
        self._write = write
        self._most = waiting
        self._batch = batch
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()  # guards _jobs and _ending
        self._ending = False
        self._worker = threading.Thread(target=self._work, name="titles", daemon=True)
        self._seconds_a_job = 1.0

    @property
    def waiting(self) -> int:
        with self._changed:
            return len(_still_wanted(self._jobs))

    def open(self) -> None:
        self._worker.start()

    def close(self) -> None:
        """Return once the part at hand is written. All jobs that still wait are cancelled."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._worker.join()
        for job in self._jobs:
            job.done.cancel()

    def submit(self, texts: Sequence[str]) -> Future[Answer]:
        """Queue a request for titles. Once the desk closes, the future is cancelled: nobody would do the work.

        Raises:
            Full: too many wait already.
        """
        job = Job(texts)
        with self._changed:
            if self._ending:
                job.done.cancel()
                return job.done
            self._jobs = deque(_still_wanted(self._jobs))
            if len(self._jobs) >= self._most:
                raise Full(max(1, round(len(self._jobs) * self._seconds_a_job)))
            self._jobs.append(job)
            self._changed.notify_all()
        return job.done

    def _work(self) -> None:
        while jobs := self._next():
            self._do(jobs)

    def _next(self) -> list[Job]:
        """Wait for jobs and take the first ones, up to a batch of texts; none once the desk closes."""
        with self._changed:
            while not self._ending:
                found: list[Job] = []
                texts = 0
                while self._jobs and texts < self._batch:
                    job = self._jobs.popleft()
                    if not job.done.done():
                        found.append(job)
                        texts += len(job.texts)
                if found:
                    return found
                self._changed.wait()
            return []

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


def _still_wanted(jobs: Iterable[Job]) -> list[Job]:
    return [job for job in jobs if not job.done.done()]
