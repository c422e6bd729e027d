"""Parse a sheet: convert each column by its meaning, and find the cells that cannot be converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.cell_values import (
    MAX_SECONDS,
    Fault,
    as_clock,
    as_lesson,
    as_name,
    as_seconds,
    as_text,
    is_blank,
    is_text,
)
from pipeline.data.problems import Problem, Severity, problems_at_rows, shorten
from pipeline.data.tables import Table
from pipeline.data.workbook_schema import LESSON

_CONVERTERS = {"course_title": as_name, "lesson_num": as_lesson, "topic": as_name, "transcript": as_text}

_FILL_IN = (
    "Fill it in. In merged cells, only the first holds a value. If it is a formula, open the file in Excel and save it."
)
_EMPTY: dict[str, tuple[Severity, str, str]] = {
    "course_title": ("error", "empty course", _FILL_IN),
    "lesson_num": ("error", "empty lesson", _FILL_IN),
    "timestamp": ("error", "empty timestamp", _FILL_IN),
    "topic": ("error", "empty title", _FILL_IN),
    "transcript": (
        "warning",
        "line without words",
        "Nothing to do if nobody speaks. The line will be set aside.",
    ),
}

_TIME_FORMATS = "Use h:mm:ss, mm:ss or seconds."
_FAULTS = {
    Fault.BELOW_ZERO: ("negative time", "is a negative time", _TIME_FORMATS),
    Fault.DATE: ("bad timestamp", "is a date", f"{_TIME_FORMATS} Format the cell as [h]:mm:ss first."),
    Fault.TOO_LONG: ("bad timestamp", f"is over {MAX_SECONDS / 3600:,.0f} hours", _TIME_FORMATS),
    Fault.UNREADABLE: ("bad timestamp", "is not a time", _TIME_FORMATS),
}

# Excel shows these and exports them to CSV for a formula without a result.
_EXCEL_ERRORS = [
    "#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!", "#FIELD!", "#BLOCKED!",
    "#CONNECT!", "#BUSY!", "#UNKNOWN!", "#GETTING_DATA", "#EXTERNAL!", "#PYTHON!",
]  # fmt: skip


@dataclass(frozen=True)
class ParsedSheet:
    """A sheet with converted columns. A cell that could not be converted is "" or NaN.

    Attributes:
        name: the name of the sheet.
        places: by header, the letter and the header: "D (timestamp)".
        time: the name of the column of seconds in `rows`.
        rows: the columns of `COLUMN_NAMES` that the sheet has, and `row`, Excel's number of the row.
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
        """Describe the lesson of a row: `lesson 2A of Clouds`."""
        course, lesson = self.rows.loc[position, LESSON]
        return f"lesson {shorten(lesson)} of {shorten(course)}"

    def pattern(self, severity: Severity, kind: str, column: str, remedy: str) -> Problem:
        """Return a problem of a column, without row and message."""
        return Problem(severity, kind, self.name, None, self.places[column], "", remedy)

    def at_rows(self, pattern: Problem, where: np.ndarray, message: Callable[[int], str]) -> list[Problem]:
        """Repeat a problem at selected rows.

        Args:
            pattern: the problem, without row and message.
            where: for each row, whether it has the problem.
            message: returns the message for the position of a row.
        """
        positions = np.flatnonzero(where)
        return problems_at_rows(pattern, self.rows["row"].to_numpy()[positions], lambda i: message(positions[i]))

    def at_lessons(
        self, pattern: Problem, lessons: np.ndarray, where: np.ndarray, message: Callable[[int, int], str]
    ) -> list[Problem]:
        """Repeat a problem once per lesson, at its first selected row.

        Args:
            pattern: the problem, without row and message.
            lessons: the lesson number of each row.
            where: for each row, whether it has the problem.
            message: returns the message for the position of that row and the number of selected rows of the lesson.
        """
        positions = np.flatnonzero(where)
        _, first, counts = np.unique(lessons[positions], return_index=True, return_counts=True)
        order = np.argsort(first)
        firsts, counts = positions[first[order]], counts[order]
        rows = self.rows["row"].to_numpy()[firsts]
        return problems_at_rows(pattern, rows, lambda i: message(firsts[i], counts[i]), counts)


def parse_sheet(table: Table, names: dict[str, str]) -> tuple[ParsedSheet, list[Problem]]:
    """Convert the columns of a table.

    Args:
        table: raw cells.
        names: the new name of each column.

    Returns:
        The sheet, and all problems of single cells.
    """
    converted: dict[str, pd.Series] = {}
    problems: list[Problem] = []
    sheet = ParsedSheet(table.name, table.places, names["timestamp"], pd.DataFrame({"row": table.cells.index}))
    for column, cells in table.cells.items():
        if column == "timestamp":
            converted[column], found = _parse_times(sheet, cells)
        else:
            converted[column] = _CONVERTERS[column](cells)
            found = _empty_cells(sheet, column, is_blank(converted[column])) + _error_cells(sheet, column, cells)
        problems += found
    if "lesson_num" in converted:
        problems += _text_numbers(sheet, table.cells["lesson_num"], converted["lesson_num"])
    rows = pd.DataFrame({names[column]: converted[column].array for column in names if column in converted})
    return ParsedSheet(sheet.name, sheet.places, sheet.time, rows.assign(row=sheet.rows["row"])), problems


def _empty_cells(sheet: ParsedSheet, column: str, where: np.ndarray) -> list[Problem]:
    severity, kind, remedy = _EMPTY[column]
    return sheet.at_rows(sheet.pattern(severity, kind, column, remedy), where, lambda _: "The cell is empty.")


def _error_cells(sheet: ParsedSheet, column: str, cells: pd.Series) -> list[Problem]:
    remedy = "Correct its formula or enter the value. If the line has no words, clear the cell."
    pattern = sheet.pattern("error", "error cell", column, remedy)
    where = cells.isin(_EXCEL_ERRORS).to_numpy(dtype=bool)
    return sheet.at_rows(pattern, where, lambda i: f"The cell shows the error {cells.iloc[i]}.")


def _parse_times(sheet: ParsedSheet, cells: pd.Series) -> tuple[pd.Series, list[Problem]]:
    times = as_seconds(cells)
    problems = _empty_cells(sheet, "timestamp", times.fault == Fault.EMPTY)
    for fault, (kind, what, remedy) in _FAULTS.items():
        pattern = sheet.pattern("error", kind, "timestamp", remedy)
        problems += sheet.at_rows(pattern, times.fault == fault, partial(_fault_message, cells, what))

    def read_as(i: int) -> str:
        seconds = times.seconds[i]
        quoted = _quote(cells.iloc[i])
        return f"{quoted} is a number stored as text. It was read as {seconds:g} seconds ({as_clock(seconds)})."

    pattern = sheet.pattern("warning", "number as text", "timestamp", "If that is wrong, use h:mm:ss.")
    problems += sheet.at_rows(pattern, times.number_as_text & (times.fault == Fault.NONE), read_as)

    latest = np.nanmax(times.seconds, initial=0)
    if 0 < latest < 1:
        remedy = "Plain numbers are read as seconds. If these are Excel times, format the column as [h]:mm:ss."
        pattern = sheet.pattern("warning", "times below one second", "timestamp", remedy)
        first = np.arange(len(cells)) == np.nanargmax(times.seconds)
        problems += sheet.at_rows(pattern, first, lambda _: f"The latest time of the sheet is {latest:g} seconds.")
    return pd.Series(times.seconds), problems


def _fault_message(cells: pd.Series, what: str, position: int) -> str:
    return f"{_quote(cells.iloc[position])} {what}."


def _text_numbers(sheet: ParsedSheet, cells: pd.Series, lessons: pd.Series) -> list[Problem]:
    """Find lessons that are a number in one cell and text in another, which is often a typing error."""
    if cells.dtype != object:
        return []
    text = is_text(cells)
    differing = text & lessons.isin(lessons[~text].unique()).to_numpy() & (lessons != "").to_numpy()
    pattern = sheet.pattern("warning", "number as text", "lesson_num", "Nothing to do if both are the same lesson.")
    return sheet.at_rows(
        pattern,
        differing,
        lambda i: (
            f"{_quote(cells.iloc[i])} is text here and a number elsewhere. Both were read as lesson {lessons.iloc[i]}."
        ),
    )


def _quote(cell: Any) -> str:
    """Quote a cell in a message; cut long text."""
    text = as_text(pd.Series([cell], dtype=object)).iloc[0]
    return repr(shorten(text, 40)) if isinstance(cell, str) else shorten(text, 40)
