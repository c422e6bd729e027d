"""Read times in text files as people and programs write them, and format times."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.data.single_values import MAX_SECONDS, Fault, as_clock
from pipeline.errors import Rejected

TIME = r"\d+:\d+(?::\d+)?(?:[.,]\d+)?"
"""A regular expression for a time in plain text: mm:ss or h:mm:ss, with a fraction or not."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_FAULTS = {Fault.TOO_LONG: f"is over {MAX_SECONDS / 3600:,.0f} hours", Fault.BELOW_ZERO: "is negative"}


class WrittenTime(NamedTuple):
    """A time as the file writes it, and the number of its line, counted from 1."""

    line_number: int
    text: str


def split_lines(text: str) -> list[str]:
    """Split `text` into the lines that an editor numbers. `str.splitlines` would also split at Unicode separators."""
    return _LINE_END.split(text)


def unescape_html(text: str) -> str:
    """Replace HTML references such as `&amp;` with their characters."""
    try:
        return html.unescape(text)
    except ValueError:  # a numeric reference with thousands of digits
        return text


def parse_times(times: Sequence[WrittenTime], file_name: str) -> list[float]:
    """Convert written times to seconds.

    Args:
        file_name: the file's name, for messages.

    Raises:
        Rejected: one of the texts is not a time.
    """
    import numpy as np  # these imports are slow, and recognising captions needs no times
    import pandas as pd

    from pipeline.data.cell_values import as_seconds

    parsed = as_seconds(pd.Series([time.text for time in times], dtype="str"))
    faulty = np.flatnonzero(parsed.fault != Fault.NONE)
    if faulty.size:
        raise Rejected(
            f"{file_name}, line {times[faulty[0]].line_number:,}: "
            + time_fault(times[faulty[0]].text, Fault(parsed.fault[faulty[0]]))
        )
    return parsed.seconds.tolist()


def time_fault(text: str, fault: Fault) -> str:
    """Describe why `text` is not a usable time, and what to write instead."""
    return f"{text[:60]!r} {_FAULTS.get(fault, 'is not a time')}. Write h:mm:ss or mm:ss."


def youtube_time(seconds: float) -> str:
    """Format whole seconds as YouTube does: 0:00, 12:05, 1:02:03."""
    minutes, whole = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole:02}" if minutes >= 60 else f"{minutes}:{whole:02}"


def short_time(seconds: float) -> str:
    """Format seconds as `youtube_time` does, with a fraction if there is one."""
    return youtube_time(seconds) if seconds == int(seconds) else as_clock(seconds)
