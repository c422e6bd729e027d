"""Convert columns of raw cells to values: times to seconds, and texts, titles and lesson numbers to a normal form.

Every function takes a whole column and converts each distinct cell once. A column of dtype `object` holds cells of
Excel's types (text, numbers, times, dates); any other column holds one type.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.single_values import (
    CONTROL_CHARACTERS,
    IGNORABLE,
    MAX_SECONDS,
    Fault,
    as_clock,
    replace_control_characters,
)

_DAY_ZERO = dt.datetime(1899, 12, 31)  # in a cell with a time format, 27 hours are 1900-01-01 03:00
_LAST_DURATION = dt.datetime(1900, 2, 28)  # Excel shows durations as dates up to this one; later dates are real dates

# A comma is a decimal point, except in 1,234, which may be a thousand.
_NUMBER = r"^(?P<minus>-?)(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|0,\d+|\d+,(?:\d{1,2}|\d{4,}))$"
# h:mm:ss or m:ss, with an optional fraction, and optional days as pandas and Python write them: "0 days 00:01:15".
_CLOCK = (
    r"^(?P<minus>-?)(?:(?P<days>\d{1,3}) days?,? \+?)?(?:(?P<hours>\d{1,4}):(?P<of_hour>[0-5]?\d)|(?P<minutes>\d{1,5}))"
    r":(?P<seconds>[0-5]?\d(?:[.,]\d+)?)$"
)
_DOTTED = r"^(\d{1,4})\.([0-5]\d)\.([0-5]\d)$"  # h.mm.ss, as in Finland and Italy
# A time of day as Google Sheets shows a duration: 12:01:20 AM is 0:01:20.
_TWELVE_HOURS = r"^(?P<hours>1[0-2]|0?[1-9]):(?P<rest>[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?) ?(?P<half>[AaPp])\.?[Mm]\.?$"
_FRAMES = r"^\d\d:\d\d:\d\d[:;]\d\d$"


@dataclass(frozen=True)
class Times:
    """A column of times: three arrays of the column's length."""

    seconds: np.ndarray  # float64, to the microsecond; NaN for a faulty cell
    fault: np.ndarray  # int8, values of `Fault`
    is_number: np.ndarray  # bool: a number without a unit, also one stored as text; it counts seconds


def as_seconds(cells: pd.Series) -> Times:
    """Convert a column of times to seconds.

    Excel durations and times, `h:mm:ss`, `mm:ss` and plain numbers of seconds are times, all with an optional fraction;
    so are `h.mm.ss` and times of day with AM or PM. Negative times, times over `MAX_SECONDS`, dates and all other cells
    are faults.
    """
    if cells.dtype == object or isinstance(cells.dtype, pd.StringDtype):
        codes, distinct = pd.factorize(cells)
    else:
        codes, distinct = np.where(cells.isna(), -1, np.arange(len(cells))), cells
    seconds, fault, is_number = _parse_distinct(pd.Series(distinct))
    with np.errstate(invalid="ignore"):
        fault[(fault == Fault.NONE) & (seconds < 0)] = Fault.BELOW_ZERO
        fault[(fault == Fault.NONE) & (seconds > MAX_SECONDS)] = Fault.TOO_LONG
    seconds[fault != Fault.NONE] = np.nan
    return Times(  # the code of a missing cell is -1, which selects the appended entry
        np.append(np.round(seconds, 6) + 0.0, np.nan)[codes],  # + 0.0 turns -0 into 0
        np.append(fault, Fault.EMPTY)[codes],
        np.append(is_number, False)[codes],
    )


def as_text(cells: pd.Series) -> pd.Series:
    """Convert a column to text, dtype `str`: 1 becomes "1", a date "2023-03-15", and an empty cell "".

    Control characters become spaces, because a terminal would execute them.
    """
    if isinstance(cells.dtype, pd.StringDtype):
        cells = cells.fillna("").astype("str")
    else:
        cells = cells.astype(object)
        odd = ~is_text(cells)
        if odd.any():
            cells = cells.copy()
            cells[odd] = cells[odd].map(_format_cell)
        cells = cells.astype("str")
    if cells.str.contains(CONTROL_CHARACTERS, regex=True).any():
        cells = cells.str.replace(CONTROL_CHARACTERS, " ", regex=True)
    return cells


def as_name(cells: pd.Series) -> pd.Series:
    """Convert a column to trimmed text; each run of white space, including line ends, becomes one space."""
    return _convert_distinct(cells, _collapse_spaces)


def as_key(cells: pd.Series) -> pd.Series:
    """Convert a column of names to texts that are equal if the names look alike.

    Unicode's compatible forms, such as full-width digits, become one form, and invisible characters are removed.
    """
    return _convert_distinct(cells, _look_alike)


def as_lesson(cells: pd.Series) -> pd.Series:
    """Convert a column of lesson numbers to text, so that equal numbers have equal texts.

    2, 2.0, "02" and " 2 " become "2"; "2a" and "2A" become "2A". Other names are only trimmed: "2.10" stays different
    from "2.1", and "Intro" stays "Intro".
    """
    return _convert_distinct(cells, lambda text: _normalise_lesson(_look_alike(text)))


def is_text(cells: pd.Series) -> np.ndarray:
    """Return for each cell whether it holds text, which may be empty."""
    if cells.dtype == object:
        return cells.map(type).eq(str).to_numpy(dtype=bool)
    return np.full(len(cells), isinstance(cells.dtype, pd.StringDtype))


def is_blank(cells: pd.Series) -> np.ndarray:
    """Return for each cell whether it is empty or holds only white space."""
    if cells.dtype == object:
        cells = cells.where(is_text(cells), "x").mask(cells.isna(), "").astype("str")
    if not isinstance(cells.dtype, pd.StringDtype):
        return cells.isna().to_numpy()
    return (cells.isna() | (cells == "") | cells.str.isspace()).to_numpy(dtype=bool)


def _convert_distinct(cells: pd.Series, convert: Callable[[str], str]) -> pd.Series:
    """Convert each distinct text of a column once; an empty cell becomes ""."""
    codes, distinct = pd.factorize(cells)
    converted = pd.Series([*map(convert, as_text(pd.Series(distinct))), ""], dtype="str")
    return converted.take(codes).set_axis(cells.index)  # the code of a missing cell is -1, which selects the last entry


def _collapse_spaces(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _look_alike(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", re.sub(IGNORABLE, "", text)).split())


def _normalise_lesson(text: str) -> str:
    if numbered := re.fullmatch(r"(\d++)(?:\.0++)?([^\W\d_]*+)", text):
        number, letters = numbered.groups()
        return (number.lstrip("0") or "0") + letters.upper()
    return text


def cell_text(cell: Any) -> str:
    """Convert one cell as `as_text` converts a column, without the time that pandas needs for a column."""
    return replace_control_characters(cell if isinstance(cell, str) else _format_cell(cell))


def _format_cell(cell: Any) -> str:
    """Format a cell that is not text as a person would type it."""
    if pd.isna(cell):
        return ""
    if isinstance(cell, bool | np.bool_):
        return str(cell).upper()
    if isinstance(cell, float | np.floating):
        cell = float(cell)
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else f"{cell:.15g}"
    if isinstance(cell, dt.timedelta):
        return as_clock(cell.total_seconds())
    if isinstance(cell, dt.datetime) and cell.time() == dt.time():
        return str(cell.date())
    return str(cell)


def _parse_distinct(cells: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return seconds, faults, and whether each cell is a plain number."""
    seconds = np.full(len(cells), np.nan)
    fault = np.full(len(cells), Fault.UNREADABLE, dtype=np.int8)
    is_number = np.zeros(len(cells), dtype=bool)
    if pd.api.types.is_timedelta64_dtype(cells):
        seconds[:] = cells.dt.total_seconds()
        fault[np.isfinite(seconds)] = Fault.NONE
    elif pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        seconds[:] = cells
        is_number[:] = True
        fault[np.isfinite(seconds)] = Fault.NONE
    elif pd.api.types.is_datetime64_any_dtype(cells):
        fault[:] = Fault.DATE
    else:
        texts = is_text(cells)
        seconds[texts], fault[texts], is_number[texts] = _parse_texts(cells[texts].astype("str"))
        for i, cell in zip(np.flatnonzero(~texts), cells[~texts], strict=True):
            seconds[i], fault[i] = _parse_cell(cell)
            is_number[i] = isinstance(cell, int | float)
    return seconds, fault, is_number


def _parse_texts(texts: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    text = pc.utf8_normalize(pa.array(texts, type=pa.large_string()), "NFKC")  # full-width digits and colons
    text = pc.replace_substring_regex(pc.utf8_trim_whitespace(text), _DOTTED, r"\1:\2:\3")
    if pc.any(pc.match_substring_regex(text, _TWELVE_HOURS)).as_py():
        rewritten = text.to_pandas().str.replace(_TWELVE_HOURS, _as_24_hours, regex=True)
        text = pa.array(rewritten, type=pa.large_string())
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
    fault[pc.match_substring_regex(text, _FRAMES).to_numpy(zero_copy_only=False)] = Fault.FRAMES
    return seconds, fault, np.isfinite(number)


def _as_24_hours(found: re.Match[str]) -> str:
    """Rewrite a time with AM or PM as h:mm:ss."""
    hours = int(found["hours"]) % 12 + (12 if found["half"] in "Pp" else 0)
    return f"{hours}:{found['rest']}" + (":00" if found["rest"].isdecimal() else "")


def _parse_cell(cell: Any) -> tuple[float, Fault]:
    """Return the seconds and the fault of an Excel cell that is not text."""
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
