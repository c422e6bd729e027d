"""Parse a sheet: convert each column by its meaning, and find the cells that cannot be converted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.cell_values import (
    Times,
    as_key,
    as_lesson,
    as_name,
    as_seconds,
    as_text,
    cell_text,
    is_blank,
    is_text,
)
from pipeline.data.problems import Problem, Severity, problems_at_rows, shorten
from pipeline.data.raw_sheets import ErrorValue, join_names
from pipeline.data.single_values import MAX_SECONDS, Fault, as_clock
from pipeline.data.tables import Table
from pipeline.data.workbook_schema import LESSON

_CONVERTERS = {"course_title": as_key, "lesson_num": as_lesson, "topic": as_name, "transcript": as_text}

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

_SECONDS_PER_DAY = 86_400
_TIME_FORMATS = "Use h:mm:ss, mm:ss or seconds."
_FAULTS = {
    Fault.BELOW_ZERO: ("negative time", "is a negative time", _TIME_FORMATS),
    Fault.DATE: ("bad timestamp", "is a date", f"{_TIME_FORMATS} Format the cell as [h]:mm:ss first."),
    Fault.TOO_LONG: ("bad timestamp", f"is over {MAX_SECONDS / 3600:,.0f} hours", _TIME_FORMATS),
    Fault.FRAMES: ("bad timestamp", "has frames or days", "Use h:mm:ss, without frames."),
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
        broken: by `row`, what is wrong with each row that has an error; `at_rows` adds to it.
    """

    name: str
    places: dict[str, str]
    time: str
    rows: pd.DataFrame
    broken: dict[int, list[str]] = field(default_factory=dict)

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
        rows = self.rows["row"].to_numpy()[positions]
        if pattern.severity == "error":
            for row, position in zip(rows.tolist(), positions, strict=True):
                self.broken.setdefault(row, []).append(message(int(position)))
        return problems_at_rows(pattern, rows, lambda i: message(positions[i]))

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
    sheet = ParsedSheet(table.name, table.places, names["timestamp"], pd.DataFrame({"row": table.cells.index}))
    problems = _misread_rows(sheet, table.misread)
    for column, cells in table.cells.items():
        if column == "timestamp":
            converted[column], found = _parse_times(sheet, cells)
        else:
            converted[column] = _CONVERTERS[column](cells)
            merged = table.merged.get(column, ())
            found = _empty_cells(sheet, column, is_blank(converted[column]), merged)
            found += _error_cells(sheet, column, cells)
        problems += found
    if "lesson_num" in converted:
        problems += _text_numbers(sheet, table.cells["lesson_num"], converted["lesson_num"])
    rows = pd.DataFrame({names[column]: converted[column].array for column in names if column in converted})
    return replace(sheet, rows=rows.assign(row=sheet.rows["row"])), problems


def _misread_rows(sheet: ParsedSheet, misread: Mapping[str, Mapping[int, str]]) -> list[Problem]:
    remedy = "Put quotation marks around text that contains a separator, and write a quotation mark within as two."
    rows = sheet.rows["row"]
    problems = []
    for kind, reasons in misread.items():
        pattern = Problem("error", kind, sheet.name, None, None, "", remedy)
        where = rows.isin(list(reasons)).to_numpy()
        problems += sheet.at_rows(pattern, where, partial(_reason_of_row, reasons, rows))
    return problems


def _reason_of_row(reasons: Mapping[int, str], rows: pd.Series, position: int) -> str:
    return reasons[rows.iloc[position]]


def _empty_cells(
    sheet: ParsedSheet, column: str, where: np.ndarray, merged: Sequence[tuple[int, int]] = ()
) -> list[Problem]:
    """Find empty cells. Those of merged cells are one problem, because one step in Excel corrects them."""
    severity, kind, remedy = _EMPTY[column]
    rows = sheet.rows["row"].to_numpy()
    within = np.zeros(len(rows), dtype=bool)
    for first, last in merged:
        within |= (first <= rows) & (rows <= last)
    pattern = sheet.pattern(severity, kind, column, remedy)
    problems = sheet.at_rows(pattern, where & ~within, lambda _: "The cell is empty.")
    if (where & within).any():
        found = sheet.at_rows(pattern, where & within, lambda _: "The cell is empty, because it is merged.")
        ranges = join_names([f"{first:,} to {last:,}" for first, last in merged])
        count = sum(problem.cells for problem in found)
        message = f"{count:,} cells are empty, because cells are merged: rows {ranges}."
        remedy = "In Excel, unmerge the cells and fill the value down to each row."
        problems.append(replace(found[0], message=message, remedy=remedy, cells=count))
    return problems


def _error_cells(sheet: ParsedSheet, column: str, cells: pd.Series) -> list[Problem]:
    remedy = "Correct its formula or enter the value. If the line has no words, clear the cell."
    pattern = sheet.pattern("error", "error cell", column, remedy)
    is_error = cells.map(type).eq(ErrorValue) if cells.dtype == object else cells.isin(_EXCEL_ERRORS)
    where = is_error.to_numpy(dtype=bool)
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
    stored_as_text = is_text(cells) & (cells.dtype == object)
    problems += sheet.at_rows(pattern, times.is_number & stored_as_text & (times.fault == Fault.NONE), read_as)

    seconds, found = _fractions_of_a_day(sheet, cells, times)
    return pd.Series(seconds), problems + found


def _fractions_of_a_day(sheet: ParsedSheet, cells: pd.Series, times: Times) -> tuple[np.ndarray, list[Problem]]:
    """Read times of Excel that have lost their format, such as 0.5 for 12 hours.

    They are recognised if all plain numbers of the column are below 1, and other cells are times or all cells are
    numbers. As seconds, all would lie in the first second of a lesson.

    Returns:
        The seconds, and a warning.
    """
    numbers = times.is_number & (times.fault == Fault.NONE)
    latest = times.seconds[numbers].max(initial=0)
    if not 0 < latest < 1:
        return times.seconds, []
    beside_times = cells.dtype == object and bool(cells.map(type).isin([dt.time, dt.timedelta]).any())
    only_numbers = bool((numbers | (times.fault != Fault.NONE)).all())
    if not (beside_times or (only_numbers and len(np.unique(times.seconds[numbers])) > 1)):
        return times.seconds, []
    seconds = np.where(numbers, np.round(times.seconds * _SECONDS_PER_DAY, 3), times.seconds)
    first = np.arange(len(cells)) == np.argmax(numbers & (times.seconds == latest))
    message = (
        "Plain numbers below 1 are times of Excel without their format, parts of a day. "
        f"{latest:.6g} was read as {as_clock(seconds[first][0])}."
    )
    remedy = "Nothing to do if that is right. Otherwise use h:mm:ss."
    pattern = sheet.pattern("warning", "fractions of a day", "timestamp", remedy)
    return seconds, sheet.at_rows(pattern, first, lambda _: message)


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
    text = shorten(cell_text(cell), 40)
    return repr(text) if isinstance(cell, str) else text
