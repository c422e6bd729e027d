"""One sheet understood: every column by itself, and the cells that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.data.cells import LONGEST, Fault, as_clock, as_lesson, as_name, as_seconds, as_text, blank, is_text
from pipeline.data.lessons import LESSON
from pipeline.data.problems import Problem, one_by_one, short
from pipeline.data.tables import Table

# How a sheet's columns are called once they are understood.
NAMES = {
    "lesson_topics": {
        "course_title": "course_title",
        "lesson_num": "lesson_num",
        "timestamp": "start_seconds",
        "topic": "title",
    },
    "lesson_transcripts": {
        "course_title": "course_title",
        "lesson_num": "lesson_num",
        "timestamp": "seconds",
        "transcript": "text",
    },
}

_MEANING = {"course_title": as_name, "lesson_num": as_lesson, "topic": as_name, "transcript": as_text}

_FILL_IN = "Fill it in. Of merged cells only the first holds a value; a formula counts once Excel has saved its result."
_EMPTY = {
    "course_title": ("error", "empty course", _FILL_IN),
    "lesson_num": ("error", "empty lesson", _FILL_IN),
    "timestamp": ("error", "empty timestamp", _FILL_IN),
    "topic": ("error", "empty title", _FILL_IN),
    "transcript": ("warning", "line without words", "Nothing to do if nothing is said: the line will be set aside."),
}

_WRITE_TIMES = "Write h:mm:ss, mm:ss or seconds."
_FAULTS = {
    Fault.BELOW_ZERO: ("negative time", "is a time below zero", _WRITE_TIMES),
    Fault.DATE: ("bad timestamp", "is a date", f"{_WRITE_TIMES} Format the cell as [h]:mm:ss first."),
    Fault.TOO_LONG: ("bad timestamp", f"is over {LONGEST / 3600:,.0f} hours", _WRITE_TIMES),
    Fault.UNREADABLE: ("bad timestamp", "is not a time", _WRITE_TIMES),
}


# What Excel shows, and writes into a CSV, where a formula has no result.
_EXCEL_ERRORS = [
    "#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!", "#FIELD!", "#BLOCKED!",
    "#CONNECT!", "#BUSY!", "#UNKNOWN!", "#GETTING_DATA", "#EXTERNAL!", "#PYTHON!",
]  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A sheet whose columns have been understood; what could not be read is "" or NaN.

    places: by header, the letter and the header: "D (timestamp)".
    time: the name of the column of seconds in `rows`.
    rows: the columns of `NAMES` that the sheet has, and `row`, as Excel shows it.
    """

    name: str
    places: dict[str, str]
    time: str
    rows: pd.DataFrame

    @property
    def seconds(self) -> np.ndarray:
        """The times, in seconds."""
        return self.rows[self.time].to_numpy()

    def lesson(self, position: int) -> str:
        """The lesson of a row, for a message."""
        course, lesson = self.rows.loc[position, LESSON]
        return f"lesson {short(lesson)} of {short(course)}"

    def pattern(self, severity: Literal["error", "warning"], kind: str, column: str, remedy: str) -> Problem:
        """A problem of this sheet that has no row and no message yet."""
        return Problem(severity, kind, self.name, None, self.places[column], "", remedy)

    def at_rows(self, pattern: Problem, where: np.ndarray, message: Callable[[int], str]) -> list[Problem]:
        """`pattern` at each row where `where` is true, saying `message(position)`."""
        positions = np.flatnonzero(where)
        return one_by_one(pattern, self.rows["row"].to_numpy()[positions], lambda i: message(positions[i]))

    def at_lessons(
        self, pattern: Problem, lessons: np.ndarray, where: np.ndarray, message: Callable[[int, int], str]
    ) -> list[Problem]:
        """`pattern` once a lesson, at its first row where `where` is true, saying `message(position, rows)`."""
        positions = np.flatnonzero(where)
        _, first, counts = np.unique(lessons[positions], return_index=True, return_counts=True)
        order = np.argsort(first)
        firsts, counts = positions[first[order]], counts[order]
        rows = self.rows["row"].to_numpy()[firsts]
        return one_by_one(pattern, rows, lambda i: message(firsts[i], counts[i]), counts)


def understand(table: Table, names: dict[str, str]) -> tuple[Sheet, list[Problem]]:
    """The sheet that `table` holds, with its columns renamed as `names` says."""
    meant, problems = {}, []
    sheet = Sheet(table.name, table.places, names["timestamp"], pd.DataFrame({"row": table.cells.index}))
    for column, cells in table.cells.items():
        if column == "timestamp":
            meant[column], found = _times(sheet, cells)
        else:
            meant[column] = _MEANING[column](cells)
            found = _empty(sheet, column, blank(meant[column])) + _errors(sheet, column, cells)
        problems += found
    if "lesson_num" in meant:
        problems += _numbers_as_text(sheet, table.cells["lesson_num"], meant["lesson_num"])
    rows = pd.DataFrame({names[column]: meant[column].array for column in names if column in meant})
    return Sheet(sheet.name, sheet.places, sheet.time, rows.assign(row=sheet.rows["row"])), problems


def _empty(sheet: Sheet, column: str, where: np.ndarray) -> list[Problem]:
    severity, kind, remedy = _EMPTY[column]
    return sheet.at_rows(sheet.pattern(severity, kind, column, remedy), where, lambda _: "The cell is empty.")


def _errors(sheet: Sheet, column: str, cells: pd.Series) -> list[Problem]:
    remedy = "Correct its formula, or write what belongs there; of a line without words, empty the cell."
    pattern = sheet.pattern("error", "error cell", column, remedy)
    where = cells.isin(_EXCEL_ERRORS).to_numpy(dtype=bool)
    return sheet.at_rows(pattern, where, lambda i: f"The cell shows the error {cells.iloc[i]}.")


def _times(sheet: Sheet, cells: pd.Series) -> tuple[pd.Series, list[Problem]]:
    times = as_seconds(cells)
    problems = _empty(sheet, "timestamp", times.fault == Fault.EMPTY)
    for fault, (kind, what, remedy) in _FAULTS.items():
        pattern = sheet.pattern("error", kind, "timestamp", remedy)
        problems += sheet.at_rows(
            pattern, times.fault == fault, lambda i, what=what: f"{_shown(cells.iloc[i])} {what}."
        )

    def read_as(i: int) -> str:
        seconds = times.seconds[i]
        return f"{_shown(cells.iloc[i])} is a number stored as text, read as {seconds:g} seconds: {as_clock(seconds)}."

    pattern = sheet.pattern("warning", "number as text", "timestamp", "If that is wrong, write h:mm:ss.")
    problems += sheet.at_rows(pattern, times.number_as_text & (times.fault == Fault.NONE), read_as)

    latest = np.nanmax(times.seconds, initial=0)
    if 0 < latest < 1:
        remedy = "Plain numbers are seconds. If these are Excel times, format the column as [h]:mm:ss."
        pattern = sheet.pattern("warning", "times below one second", "timestamp", remedy)
        first = np.arange(len(cells)) == np.nanargmax(times.seconds)
        problems += sheet.at_rows(pattern, first, lambda _: f"The latest time of the sheet is {latest:g} seconds.")
    return pd.Series(times.seconds), problems


def _numbers_as_text(sheet: Sheet, cells: pd.Series, lessons: pd.Series) -> list[Problem]:
    """Where a lesson is a number in most cells and text in others, which is most often a slip."""
    if cells.dtype != object:
        return []
    text = is_text(cells)
    slips = text & lessons.isin(lessons[~text].unique()).to_numpy() & (lessons != "").to_numpy()
    pattern = sheet.pattern("warning", "number as text", "lesson_num", "Nothing to do if that is the same lesson.")
    return sheet.at_rows(
        pattern,
        slips,
        lambda i: f"{_shown(cells.iloc[i])} is text here and a number elsewhere; both are read as {lessons.iloc[i]}.",
    )


def _shown(cell: Any) -> str:
    """A cell as a message quotes it: whole if it is short."""
    text = as_text(pd.Series([cell], dtype=object)).iloc[0]
    return repr(short(text, 40)) if isinstance(cell, str) else short(text, 40)
