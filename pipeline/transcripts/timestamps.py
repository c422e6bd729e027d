"""Text files with times: their lines, and the times as people and programs write them."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.data.cell_values import MAX_SECONDS, Fault, as_clock, as_seconds
from pipeline.errors import Rejected

_LINE_END = re.compile(r"\r\n|\r|\n")
_WRONG = {Fault.TOO_LONG: f"is over {MAX_SECONDS / 3600:,.0f} hours", Fault.BELOW_ZERO: "is a time below zero"}


class Stamp(NamedTuple):
    """A time as it is written, and the line that it stands in."""

    at: int
    written: str


def rows_of(text: str) -> list[str]:
    """The lines of `text` as an editor numbers them, who ends none at what only Unicode calls a line separator."""
    return _LINE_END.split(text)


def unescaped(text: str) -> str:
    """`text` with the characters that HTML's references such as `&amp;` stand for."""
    try:
        return html.unescape(text)
    except ValueError:  # a reference by a number of thousands of digits stands for no character
        return text


def seconds_of(stamps: Sequence[Stamp], name: str) -> list[float]:
    """The seconds of each; `name` is the file's, for the message.

    Raises:
        Rejected: one of them is not a time.
    """
    times = as_seconds(pd.Series([stamp.written for stamp in stamps], dtype="str"))
    wrong = np.flatnonzero(times.fault != Fault.NONE)
    if wrong.size:
        at, written = stamps[wrong[0]]
        why = _WRONG.get(Fault(times.fault[wrong[0]]), "is not a time")
        raise Rejected(f"{name}, line {at:,}: {written[:60]!r} {why}. Write h:mm:ss or mm:ss.")
    return times.seconds.tolist()


def as_stamp(seconds: float) -> str:
    """As YouTube writes a chapter's start, in whole seconds: 0:00, 12:05, 1:02:03."""
    minutes, whole = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole:02}" if minutes >= 60 else f"{minutes}:{whole:02}"


def as_written(seconds: float) -> str:
    """As a person would write it: as `as_stamp`, unless there is a fraction."""
    return as_stamp(seconds) if seconds == int(seconds) else as_clock(seconds)
