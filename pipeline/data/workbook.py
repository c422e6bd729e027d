"""Read a workbook into a table of topics and a table of lines, and check everything that it must hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
from pydantic import Field

from pipeline.data.lesson_checks import check_lessons
from pipeline.data.problems import Problem, WorkbookRejected, errors, in_order
from pipeline.data.sheet_parsing import ParsedSheet, parse_sheet
from pipeline.data.tables import open_tables
from pipeline.data.workbook_schema import COLUMN_NAMES, LESSON, LINES, OPTIONAL_COLUMNS, TOPICS
from pipeline.settings import Section


class IngestSettings(Section):
    """The workbook that the pipeline reads."""

    section: ClassVar[str] = "ingest"

    workbook: Path = Field(description="an .xlsx, or a folder with both tables as .csv or .parquet")


@dataclass(frozen=True)
class Workbook:
    """The content of a workbook and its problems. If there are errors, the tables hold the readable cells.

    Attributes:
        topics: course_title, lesson_num: str; start_seconds: float; title: str; row: int, Excel's number.
        lines: course_title, lesson_num: str; seconds: float; text: str; row: int.
        problems: errors first, then warnings.
    """

    topics: pd.DataFrame
    lines: pd.DataFrame
    problems: list[Problem]


def ingest(path: Path) -> Workbook:
    """Read a workbook that has no errors, only warnings.

    Raises:
        WorkbookRejected: the workbook has errors.
        UsageError: `path` does not exist, or is neither a file nor a folder.
    """
    workbook = read_workbook(path)
    if errors(workbook.problems):
        raise WorkbookRejected(path, workbook.problems)
    return workbook


def read_workbook(path: Path) -> Workbook:
    """Read an .xlsx or a folder of tables with all its problems.

    Raises:
        UsageError: `path` does not exist, or is neither a file nor a folder.
    """
    wanted = {name: tuple(columns) for name, columns in COLUMN_NAMES.items()}
    tables, problems = open_tables(path, wanted, OPTIONAL_COLUMNS)
    sheets = {}
    for name in list(tables):
        sheets[name], found = parse_sheet(tables.pop(name), COLUMN_NAMES[name])
        problems += found
    problems += check_lessons(*(_if_complete(sheets.get(name)) for name in (TOPICS, LINES)))
    return Workbook(_rows(sheets, TOPICS), _rows(sheets, LINES), in_order(problems))


def _if_complete(sheet: ParsedSheet | None) -> ParsedSheet | None:
    """Return the sheet if it has the columns that the checks of lessons need."""
    return sheet if sheet and {*LESSON, sheet.time} <= {*sheet.rows} else None


def _rows(sheets: dict[str, ParsedSheet], name: str) -> pd.DataFrame:
    columns = [*COLUMN_NAMES[name].values(), "row"]
    return sheets[name].rows.reindex(columns=columns) if name in sheets else pd.DataFrame(columns=columns)
