"""The data contract: what a workbook must hold, checked, as a table of topics and a table of lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
from pydantic import Field

from pipeline.data.consistency import problems_of_lessons
from pipeline.data.lessons import LESSON
from pipeline.data.problems import Problem, WorkbookRejected, errors, in_order
from pipeline.data.sheets import NAMES, Sheet, understand
from pipeline.data.tables import open_tables
from pipeline.settings import Section

TOPICS = "lesson_topics"
LINES = "lesson_transcripts"
OPTIONAL = ("video_url",)


class IngestSettings(Section):
    """Which workbook is read."""

    section: ClassVar[str] = "ingest"

    workbook: Path = Field(description="an .xlsx, or a folder with both tables as .csv or .parquet")


@dataclass(frozen=True)
class Workbook:
    """A workbook as it was understood. Where `problems` holds errors, the tables hold what could be read.

    topics: course_title, lesson_num: str; start_seconds: float; title: str; row: int, as Excel shows it.
    lines: course_title, lesson_num: str; seconds: float; text: str; row: int.
    """

    topics: pd.DataFrame
    lines: pd.DataFrame
    problems: list[Problem]


def ingest(path: Path) -> Workbook:
    """The workbook at `path`, fit for use: all its problems are warnings.

    Raises:
        WorkbookRejected: it has errors.
        UsageError: there is nothing at `path`.
    """
    workbook = read_workbook(path)
    if errors(workbook.problems):
        raise WorkbookRejected(path, workbook.problems)
    return workbook


def read_workbook(path: Path) -> Workbook:
    """The workbook at `path` (an .xlsx, or a folder of tables) with every problem in it, errors first.

    Raises:
        UsageError: there is nothing at `path`.
    """
    tables, problems = open_tables(path, {name: tuple(columns) for name, columns in NAMES.items()}, OPTIONAL)
    sheets = {}
    for name in list(tables):
        sheets[name], found = understand(tables.pop(name), NAMES[name])
        problems += found
    problems += problems_of_lessons(*(_if_complete(sheets.get(name)) for name in (TOPICS, LINES)))
    return Workbook(_rows(sheets, TOPICS), _rows(sheets, LINES), in_order(problems))


def _if_complete(sheet: Sheet | None) -> Sheet | None:
    return sheet if sheet and {*LESSON, sheet.time} <= {*sheet.rows} else None


def _rows(sheets: dict[str, Sheet], name: str) -> pd.DataFrame:
    columns = [*NAMES[name].values(), "row"]
    return sheets[name].rows.reindex(columns=columns) if name in sheets else pd.DataFrame(columns=columns)
