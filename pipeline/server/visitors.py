"""Visitors of the page: who they are, which files are theirs, and whether they still wait for an answer."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

COOKIE = "lectern_visitor"
_SECRET = re.compile(r"[\w-]{43}", re.ASCII)

_SECONDS_BETWEEN_STREAMS = 2.0  # time for a page to close one stream and open the next
_SECONDS_TO_FIRST_STREAM = 30.0  # a program may take this long between its call and its request for the answer
_MOST_STREAMS = 10_000


def new_visitor() -> str:
    """Create the secret that identifies a visitor."""
    return secrets.token_urlsafe(32)


def is_visitor(secret: str) -> bool:
    """Return whether `secret` has the form of one from `new_visitor`."""
    return _SECRET.fullmatch(secret) is not None


class VisitorFiles:
    """Keeps each visitor's files in a folder named after a hash of the visitor's secret.

    The path of a file therefore shows whose it is, and a path without the secret gives no access.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "visitors"

    def new_folder(self, visitor: str) -> Path:
        """Create a folder for one file of `visitor`, with a random name."""
        folder = self._folder_of(visitor) / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        return folder

    def find(self, visitor: str, path: str) -> Path | None:
        """Return the file at `path` if it belongs to `visitor`, else None.

        Only the visitor's own folder is read, so that the answer reveals nothing about other files.
        """
        found = Path(path)
        if ".." in found.parts or found.parent.parent != self._folder_of(visitor):
            return None
        try:
            return found if found.is_file() and not found.is_symlink() else None
        except OSError:  # for example, a name that is too long
            return None

    def _folder_of(self, visitor: str) -> Path:
        return self._folder / hashlib.sha256(visitor.encode()).hexdigest()


class AnswerStreams:
    """Tracks the connections on which visitors wait for answers, so that work for visitors who have left can stop.

    A stream is named after the session or the call whose answers it carries.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._closed_at: dict[str, float] = {}
        self._called_at: dict[str, float] = {}

    def expect(self, stream: str) -> None:
        """Note that a call was made now, whose answer will be sent on `stream`."""
        self._called_at.pop(stream, None)  # keeps the dictionary in order of time
        self._called_at[stream] = self._clock()
        if len(self._called_at) > _MOST_STREAMS:
            del self._called_at[next(iter(self._called_at))]

    def is_expected(self, stream: str) -> bool:
        """Return whether a call was made whose answer will be sent on `stream`."""
        return stream in self._called_at

    @contextmanager
    def listening(self, stream: str) -> Iterator[None]:
        """Count a stream as open during the block."""
        self._open[stream] += 1
        try:
            yield
        finally:
            self._open[stream] -= 1
            if not self._open[stream]:
                del self._open[stream]
            self._closed_at[stream] = self._clock()
            self._forget_old()

    def waiting_for(self, *streams: str) -> Callable[[], bool]:
        """Return a function that returns whether the visitor still waits for a call, which starts now.

        Args:
            streams: the streams on which the call can be answered.
        """
        started = self._clock()

        def is_waiting() -> bool:
            if any(stream in self._open for stream in streams):
                return True
            # A session has the time of its latest call. The earliest time is therefore that of this call.
            called = min((self._called_at[stream] for stream in streams if stream in self._called_at), default=-inf)
            closed = [self._closed_at[stream] for stream in streams if self._closed_at.get(stream, -inf) > called]
            if closed:
                return self._clock() < max(started, *closed) + _SECONDS_BETWEEN_STREAMS
            return self._clock() < started + _SECONDS_TO_FIRST_STREAM

        return is_waiting

    def _forget_old(self) -> None:
        if len(self._closed_at) > _MOST_STREAMS:
            old = self._clock() - 10 * _SECONDS_TO_FIRST_STREAM
            self._closed_at = {stream: closed for stream, closed in self._closed_at.items() if closed > old}
