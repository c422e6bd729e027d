"""What single columns mean: times as seconds, and text, names and lesson numbers as a person compares them.

Every function takes a whole column and converts each distinct cell once. A column of dtype `object` holds cells as
Excel types them (text, numbers, times, dates); any other column holds one type.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

LONGEST = 1000 * 3600.0  # seconds; a time beyond it is a date, a count of milliseconds or a slip

_DAY_ZERO = dt.datetime(1899, 12, 31)  # Excel shows 27 hours in a cell formatted as a time as 1900-01-01 03:00
_LAST_DURATION = dt.datetime(1900, 2, 28)

_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # all but tabs and line ends
_NUMBER = r"^(?P<minus>-?)(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)$"
# h:mm:ss or m:ss, with a fraction, and with the days that pandas and Python write before them: "0 days 00:01:15".
_CLOCK = (
    r"^(?P<minus>-?)(?:(?P<days>\d{1,3}) days?,? \+?)?(?:(?P<hours>\d{1,4}):(?P<of_hour>[0-5]?\d)|(?P<minutes>\d{1,5}))"
    r":(?P<seconds>[0-5]?\d(?:[.,]\d+)?)$"
)


class Fault(IntEnum):
    """Why a cell is not a time."""

    NONE = 0
    EMPTY = 1
    BELOW_ZERO = 2
    DATE = 3
    TOO_LONG = 4
    UNREADABLE = 5


@dataclass(frozen=True)
class Times:
    """A column of times; three arrays as long as the column."""

    seconds: np.ndarray  # float64, to the microsecond; NaN where there is a fault
    fault: np.ndarray  # int8, a `Fault` each
    number_as_text: np.ndarray  # bool: a number of seconds, but stored as text in a column that could hold numbers


def as_seconds(cells: pd.Series) -> Times:
    """A column of times: Excel durations and times, `h:mm:ss`, `mm:ss`, plain seconds, each with a fraction.

    A number means seconds. What is below zero, beyond `LONGEST`, a date, or anything else is a fault, never a guess.
    """
    if cells.dtype == object or isinstance(cells.dtype, pd.StringDtype):
        codes, distinct = pd.factorize(cells)
    else:
        codes, distinct = np.where(cells.isna(), -1, np.arange(len(cells))), cells
    seconds, fault, number_as_text = _distinct_seconds(pd.Series(distinct))
    with np.errstate(invalid="ignore"):
        fault[(fault == Fault.NONE) & (seconds < 0)] = Fault.BELOW_ZERO
        fault[(fault == Fault.NONE) & (seconds > LONGEST)] = Fault.TOO_LONG
    seconds[fault != Fault.NONE] = np.nan
    return Times(  # -1, a missing cell, takes the entry that is appended
        np.append(np.round(seconds, 6) + 0.0, np.nan)[codes],  # + 0.0 makes 0 of -0
        np.append(fault, Fault.EMPTY)[codes],
        np.append(number_as_text, False)[codes] & (cells.dtype == object),
    )


def as_clock(seconds: float) -> str:
    """`seconds` as `h:mm:ss`, with a fraction only where there is one: 3675.5 is "1:01:15.5"."""
    minus = "-" if seconds < 0 else ""
    whole, micro = divmod(round(abs(seconds) * 1_000_000), 1_000_000)
    fraction = f".{micro:06}".rstrip("0") if micro else ""
    return f"{minus}{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}{fraction}"


def as_text(cells: pd.Series) -> pd.Series:
    """A column of text as it was typed, of dtype `str`: 1 is "1", a date is "2023-03-15", an empty cell is "".

    Control characters, which nobody types and a terminal obeys, are spaces.
    """
    if isinstance(cells.dtype, pd.StringDtype):
        cells = cells.fillna("").astype("str")
    else:
        cells = cells.astype(object)
        odd = ~is_text(cells)
        if odd.any():
            cells = cells.copy()
            cells[odd] = cells[odd].map(_written)
        cells = cells.astype("str")
    return cells.str.replace(_CONTROL, " ", regex=True) if cells.str.contains(_CONTROL, regex=True).any() else cells


def without_controls(text: str) -> str:
    """`text` with a space for each control character but tabs and line ends."""
    return re.sub(_CONTROL, " ", text)


def as_name(cells: pd.Series) -> pd.Series:
    """A column of titles: as text, trimmed, and every run of spaces (no-break ones and line ends too) one space."""
    return _once_each(cells, _folded)


def as_lesson(cells: pd.Series) -> pd.Series:
    """A column of lesson numbers as a person compares them.

    2, 2.0, "02" and " 2 " are "2"; "2a" and "2A" are "2A", since letters after a number are upper-cased. Other names
    are only trimmed and folded: "2.10" is not "2.1", and "Intro" stays "Intro".
    """
    return _once_each(cells, lambda text: _lesson(_folded(text)))


def is_text(cells: pd.Series) -> np.ndarray:
    """True where a cell holds text, be it empty."""
    if cells.dtype == object:
        return cells.map(type).eq(str).to_numpy(dtype=bool)
    return np.full(len(cells), isinstance(cells.dtype, pd.StringDtype))


def blank(cells: pd.Series) -> np.ndarray:
    """True where a cell is empty or holds nothing but spaces."""
    if cells.dtype == object:
        cells = cells.where(is_text(cells), "x").mask(cells.isna(), "").astype("str")
    if not isinstance(cells.dtype, pd.StringDtype):
        return cells.isna().to_numpy()
    return (cells.isna() | (cells == "") | cells.str.isspace()).to_numpy(dtype=bool)


def _once_each(cells: pd.Series, convert: Callable[[str], str]) -> pd.Series:
    codes, distinct = pd.factorize(cells)
    converted = pd.Series([*map(convert, as_text(pd.Series(distinct))), ""], dtype="str")
    return converted.take(codes).set_axis(cells.index)  # -1, a missing cell, takes the last


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _lesson(text: str) -> str:
    if numbered := re.fullmatch(r"(\d++)(?:\.0++)?([^\W\d_]*+)", text):
        number, letters = numbered.groups()
        return (number.lstrip("0") or "0") + letters.upper()
    return text


def _written(cell: Any) -> str:
    """One cell that is not text, as a person would type it."""
    if pd.isna(cell):
        return ""
    if isinstance(cell, bool | np.bool_):
        return str(cell).upper()
    if isinstance(cell, float | np.floating):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else f"{cell:.15g}"
    if isinstance(cell, dt.timedelta):
        return as_clock(cell.total_seconds())
    if isinstance(cell, dt.datetime) and cell.time() == dt.time():
        return str(cell.date())
    return str(cell)


def _distinct_seconds(cells: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds, faults, and which cells are numbers stored as text."""
    seconds = np.full(len(cells), np.nan)
    fault = np.full(len(cells), Fault.UNREADABLE, dtype=np.int8)
    number_as_text = np.zeros(len(cells), dtype=bool)
    if pd.api.types.is_timedelta64_dtype(cells):
        cells = cells.dt.total_seconds()
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        seconds[:] = cells
        fault[np.isfinite(seconds)] = Fault.NONE
    elif pd.api.types.is_datetime64_any_dtype(cells):
        fault[:] = Fault.DATE
    else:
        texts = is_text(cells)
        seconds[texts], fault[texts], number_as_text[texts] = _seconds_of_text(cells[texts].astype("str"))
        for i, cell in zip(np.flatnonzero(~texts), cells[~texts], strict=True):
            seconds[i], fault[i] = _seconds_of_cell(cell)
    return seconds, fault, number_as_text


def _seconds_of_text(texts: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    text = pc.utf8_trim_whitespace(pa.array(texts, type=pa.large_string()))
    numbers = pc.extract_regex(text, _NUMBER)
    clocks = pc.extract_regex(text, _CLOCK)

    def part(match: pa.Array, name: str) -> np.ndarray:
        found = pc.replace_substring(pc.struct_field(match, name), ",", ".")
        found = pc.if_else(pc.equal(found, ""), "0", found)
        return pc.cast(found, pa.float64()).to_numpy(zero_copy_only=False)

    def minus(match: pa.Array) -> np.ndarray:
        return pc.equal(pc.struct_field(match, "minus"), "-").fill_null(False).to_numpy(zero_copy_only=False)

    minutes = part(clocks, "of_hour") + part(clocks, "minutes")
    clock = ((part(clocks, "days") * 24 + part(clocks, "hours")) * 60 + minutes) * 60 + part(clocks, "seconds")
    number = part(numbers, "number")
    seconds = np.where(np.isnan(number), clock, number)
    seconds[minus(numbers) | minus(clocks)] *= -1
    fault = np.where(np.isnan(seconds), Fault.UNREADABLE, Fault.NONE)
    fault[pc.equal(text, "").to_numpy(zero_copy_only=False)] = Fault.EMPTY
    return seconds, fault, np.isfinite(number)


def _seconds_of_cell(cell: Any) -> tuple[float, Fault]:
    """One cell of an Excel sheet that is not text."""
    seconds, fault = np.nan, Fault.UNREADABLE
    match cell:
        case bool():
            pass
        case int() | float() if abs(cell) < np.inf:
            seconds, fault = float(cell), Fault.NONE
        case dt.timedelta():
            seconds, fault = cell.total_seconds(), Fault.NONE
        case dt.time():
            seconds = cell.hour * 3600 + cell.minute * 60 + cell.second + cell.microsecond / 1e6
            fault = Fault.NONE
        case dt.datetime() if cell.tzinfo is None and cell <= _LAST_DURATION:
            seconds, fault = (cell - _DAY_ZERO).total_seconds(), Fault.NONE
        case dt.date():
            fault = Fault.DATE
    return seconds, fault
