"""Combine several workbooks into one; a lesson in several of them comes from the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.speaker_column import with_speakers
from pipeline.data.workbook import ingest
from pipeline.data.workbook_schema import COLUMN_NAMES, LESSON, LINES, SPEAKER, TOPICS
from pipeline.files import folder_aside


@dataclass(frozen=True)
class Combined:
    """Counts of combined workbooks.

    Attributes:
        lessons: lessons in the result.
        replaced: lessons of one workbook that a later workbook replaced.
    """

    lessons: int
    replaced: int


def combine_workbooks(workbooks: Sequence[Path], folder: Path) -> Combined:
    """Write the lessons of all `workbooks` to `folder` as two Parquet tables. `folder` may be one of the workbooks.

    Raises:
        WorkbookRejected: a workbook has errors; nothing is written.
        UsageError: a path does not exist.
    """
    read = [ingest(path) for path in workbooks]
    spoken = [with_speakers(book.lines, path) for book, path in zip(read, workbooks, strict=True)]
    tables = {TOPICS: [book.topics for book in read], LINES: spoken}
    last = {lesson: n for n, book in enumerate(read) for lesson in _lessons(book.topics, book.lines)}
    with folder_aside(folder) as aside:
        for name, parts in tables.items():
            kept = pd.concat(
                [part[[last[lesson] == n for lesson in _keys(part)]] for n, part in enumerate(parts)], ignore_index=True
            )
            _with_file_columns(kept, name).to_parquet(aside / f"{name}.parquet", index=False)
    total = sum(len(_lessons(book.topics, book.lines)) for book in read)
    return Combined(len(last), total - len(last))


def _lessons(*tables: pd.DataFrame) -> set[tuple[str, str]]:
    return {lesson for table in tables for lesson in _keys(table)}


def _keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(table[LESSON].itertuples(index=False, name=None))


def _with_file_columns(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rename the columns of a table to those of a workbook, and turn seconds into durations."""
    columns = {in_file: table[in_table] for in_file, in_table in COLUMN_NAMES[name].items()}
    if SPEAKER in table:
        columns[SPEAKER] = table[SPEAKER].fillna("")
    columns["timestamp"] = pd.to_timedelta(columns["timestamp"], unit="s").astype("timedelta64[us]")
    return pd.DataFrame(columns)
