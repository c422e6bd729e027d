"""The visitors that still wait for the answer to a call of the page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

_GRACE = 2.0  # seconds between two streams of one page, which closes one and opens the next
_REMEMBERED = 10_000  # streams
_FIRST = 30.0  # seconds that a program may take between its call and the request for the answer


class Listeners:
    """The open streams of answers, by the session or the call that they are for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._left: dict[str, float] = {}
        self._expected: dict[str, float] = {}

    def expect(self, stream: str) -> None:
        """Note that a call was made just now, whose answer comes on `stream`."""
        self._expected.pop(stream, None)  # so that the oldest stays in front
        self._expected[stream] = self._clock()
        if len(self._expected) > _REMEMBERED:
            del self._expected[next(iter(self._expected))]

    def is_expected(self, stream: str) -> bool:
        """True if an answer was noted for `stream`."""
        return stream in self._expected

    @contextmanager
    def listening(self, stream: str) -> Iterator[None]:
        """Count a stream as open within the block."""
        self._open[stream] += 1
        try:
            yield
        finally:
            self._open[stream] -= 1
            if not self._open[stream]:
                del self._open[stream]
            self._left[stream] = self._clock()
            self._forget()

    def waiting_for(self, *streams: str) -> Callable[[], bool]:
        """Return what tells whether anybody still waits for a call that begins now and is answered on `streams`."""
        began = self._clock()

        def somebody_waits() -> bool:
            if any(stream in self._open for stream in streams):
                return True
            # A session has the time of its latest call, so the earlier one is that of this call.
            called = min((self._expected[stream] for stream in streams if stream in self._expected), default=-inf)
            left = [self._left[stream] for stream in streams if self._left.get(stream, -inf) > called]
            until = max([began, *left]) + _GRACE if left else began + _FIRST
            return self._clock() < until

        return somebody_waits

    def _forget(self) -> None:
        """Drop what was closed so long ago that no call asks for it: calls look several times a second."""
        if len(self._left) > _REMEMBERED:
            old = self._clock() - 10 * _FIRST
            self._left = {stream: left for stream, left in self._left.items() if left > old}
