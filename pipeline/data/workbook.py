"""Read a workbook into a table of topics and a table of lines, and check everything that it must hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field

from pipeline.data.broken_rows import as_set_aside, is_of_broken_row, no_rows_aside, set_broken_rows_aside
from pipeline.data.lesson_checks import check_lessons
from pipeline.data.minutes_as_hours import correct_minutes
from pipeline.data.problems import Problem, WorkbookRejected, errors, in_order
from pipeline.data.sheet_parsing import ParsedSheet, parse_sheet
from pipeline.data.tables import open_tables
from pipeline.data.workbook_schema import COLUMN_NAMES, LESSON, LINES, OPTIONAL_COLUMNS, TOPICS
from pipeline.settings import Section


class IngestSettings(Section):
    """The workbook that the pipeline reads."""

    section: ClassVar[str] = "ingest"

    workbook: Path = Field(description="an .xlsx, or a folder with both tables as .csv or .parquet")
    broken_rows: Literal["refuse", "set-aside"] = Field(
        default="refuse", description="what a row with an error does: refuse the workbook, or set only the row aside"
    )

    @property
    def sets_aside(self) -> bool:
        """Return whether rows with errors are set aside."""
        return self.broken_rows == "set-aside"


_REINTERPRETED = ("hours read as minutes", "fractions of a day", "guessed encoding")
SET_ASIDE_HINT = (
    "Or train on the other rows: `lectern use --set-aside WORKBOOK` sets these rows aside, with the reason."
)


@dataclass(frozen=True)
class Workbook:
    """The content of a workbook and its problems. If there are errors, the tables hold the readable cells.

    Attributes:
        topics: course_title, lesson_num: str; start_seconds: float; title: str; row: int, Excel's number.
        lines: course_title, lesson_num: str; seconds: float; text: str; row: int.
        problems: errors first, then warnings.
        set_aside: the rows that are in neither table because of errors, in the columns of
            `BuiltExamples.set_aside`.
        only_rows_broken: whether all errors are errors of single rows, which can be set aside.
    """

    topics: pd.DataFrame
    lines: pd.DataFrame
    problems: list[Problem]
    set_aside: pd.DataFrame
    only_rows_broken: bool


def reinterpretations(workbook: Workbook) -> list[str]:
    """Describe reinterpreted cells, such as minutes read as hours, for commands that show no other warnings."""
    return [problem.message for problem in workbook.problems if problem.kind in _REINTERPRETED]


def ingest(path: Path, *, set_aside: bool = False) -> Workbook:
    """Read a workbook that has no errors, only warnings.

    Args:
        path: the workbook.
        set_aside: whether to set rows with errors aside.

    Raises:
        WorkbookRejected: the workbook has errors, or errors other than those of single rows.
        UsageError: `path` does not exist, or is neither a file nor a folder.
    """
    workbook = read_workbook(path, set_aside=set_aside)
    if errors(workbook.problems):
        raise WorkbookRejected(
            path, workbook.problems, SET_ASIDE_HINT if workbook.only_rows_broken and not set_aside else ""
        )
    return workbook


def read_untitled(path: Path) -> Workbook:
    """Read a workbook in which titles may be missing.

    Raises:
        WorkbookRejected: the workbook has other errors.
    """
    workbook = read_workbook(path)
    others = [problem for problem in workbook.problems if problem.kind != "empty title"]
    if errors(others):
        raise WorkbookRejected(path, others)
    return workbook


def read_workbook(path: Path, *, set_aside: bool = False) -> Workbook:
    """Read an .xlsx or a folder of tables with all its problems.

    Args:
        path: the workbook.
        set_aside: whether to set rows with errors aside. Their errors are then warnings.

    Raises:
        UsageError: `path` does not exist, or is neither a file nor a folder.
    """
    wanted = {name: tuple(columns) for name, columns in COLUMN_NAMES.items()}
    tables, problems = open_tables(path, wanted, OPTIONAL_COLUMNS)
    sheets = {}
    for name in list(tables):
        sheets[name], found = parse_sheet(tables.pop(name), COLUMN_NAMES[name])
        problems += found
    topics, lines = (_if_complete(sheets.get(name)) for name in (TOPICS, LINES))
    if topics and lines:
        topics, lines, found = correct_minutes(topics, lines)
        sheets, problems = {TOPICS: topics, LINES: lines}, problems + found
    problems += check_lessons(topics, lines)
    only_rows_broken = all(is_of_broken_row(problem, sheets.values()) for problem in errors(problems))
    tables_of = {name: _rows(sheets, name) for name in (TOPICS, LINES)}
    aside = no_rows_aside()
    if set_aside and topics and lines and only_rows_broken:
        tables_of[TOPICS], tables_of[LINES], aside = set_broken_rows_aside(topics, lines)
        problems = [as_set_aside(problem) for problem in problems]
        problems += [_nothing_left(sheets[name]) for name, rows in tables_of.items() if rows.empty]
    return Workbook(tables_of[TOPICS], tables_of[LINES], in_order(problems), aside, only_rows_broken)


def _nothing_left(sheet: ParsedSheet) -> Problem:
    message = "No row is left after setting aside the broken ones."
    return Problem("error", "no rows", sheet.name, None, None, message, "Correct them.")


def _if_complete(sheet: ParsedSheet | None) -> ParsedSheet | None:
    """Return the sheet if it has the columns that the checks of lessons need."""
    return sheet if sheet and {*LESSON, sheet.time} <= {*sheet.rows} else None


def _rows(sheets: dict[str, ParsedSheet], name: str) -> pd.DataFrame:
    columns = [*COLUMN_NAMES[name].values(), "row"]
    return sheets[name].rows.reindex(columns=columns) if name in sheets else pd.DataFrame(columns=columns)
