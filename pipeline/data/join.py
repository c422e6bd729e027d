"""Several workbooks as one: each lesson as the last workbook has it that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.lessons import LESSON
from pipeline.data.sheets import NAMES
from pipeline.data.workbook import LINES, TOPICS, ingest
from pipeline.files import folder_aside


@dataclass(frozen=True)
class Joined:
    """`replaced`: lessons of one workbook that a later one holds too, and that counted as that has them."""

    lessons: int
    replaced: int


def join(workbooks: Sequence[Path], folder: Path) -> Joined:
    """Writes the lessons of all `workbooks` to `folder` as two tables. `folder` may be one of them.

    Raises:
        WorkbookRejected: one of them is broken; nothing is written.
        UsageError: there is nothing at one of the paths.
    """
    read = [ingest(path) for path in workbooks]
    tables = {TOPICS: [book.topics for book in read], LINES: [book.lines for book in read]}
    last = {lesson: n for n, book in enumerate(read) for lesson in _lessons(book.topics, book.lines)}
    with folder_aside(folder) as aside:
        for name, parts in tables.items():
            kept = pd.concat(
                [part[[last[lesson] == n for lesson in _keys(part)]] for n, part in enumerate(parts)], ignore_index=True
            )
            _as_written(kept, name).to_parquet(aside / f"{name}.parquet", index=False)
    held = sum(len(_lessons(book.topics, book.lines)) for book in read)
    return Joined(len(last), held - len(last))


def _lessons(*tables: pd.DataFrame) -> set[tuple[str, str]]:
    return {lesson for table in tables for lesson in _keys(table)}


def _keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(table[LESSON].itertuples(index=False, name=None))


def _as_written(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """`table` as it stands in a file: the columns by their names there, times as durations."""
    columns = {theirs: table[ours] for theirs, ours in NAMES[name].items()}
    columns["timestamp"] = pd.to_timedelta(columns["timestamp"], unit="s").astype("timedelta64[us]")
    return pd.DataFrame(columns)
