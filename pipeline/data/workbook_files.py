"""Recognise workbooks, and write both tables as an Excel workbook."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pandas as pd
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from pipeline.data.fallbacks import FALLBACK
from pipeline.data.sample import write_workbook
from pipeline.data.sheets import NAMES
from pipeline.data.tables import table_files
from pipeline.data.workbook import LINES, TOPICS
from pipeline.errors import Rejected, UsageError

_ROWS_OF_A_SHEET = 1_048_576 - 1  # below the header
_LONGEST_CELL = 32_767


def is_workbook(path: Path) -> bool:
    """Whether `path` is an .xlsx or .xlsm, or a folder that holds one of a workbook's two tables."""
    if path.is_dir():
        return any(file.stem.strip().lower() in NAMES for file in table_files(path))
    return path.suffix.lower() in (".xlsx", ".xlsm") and path.is_file()


def must_be_workbook(out: Path) -> None:
    """Raises:
    UsageError: `out` is no .xlsx.
    """
    if out.suffix.lower() != ".xlsx":
        raise UsageError(f"--out {out} must end in .xlsx: a titled workbook is written as Excel reads it.")


def may_be_written(out: Path, *, overwrite: bool) -> None:
    """Raises:
    UsageError: `out` is a folder, or is there and must not be overwritten.
    """
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder. Name a file.")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists already. Name another file with --out, or allow it with --overwrite.")


def as_cell(text: str) -> str:
    """`text` as a cell can hold it."""
    return ILLEGAL_CHARACTERS_RE.sub(" ", text).strip()[:_LONGEST_CELL]


def write_tables(path: Path, topics: pd.DataFrame, lines: pd.DataFrame, out: Path, marks: Mapping[int, str]) -> None:
    """Both tables, as a workbook is understood, as the sheets of `out`; `path` is what a message calls them.

    Args:
        marks: by row of `topics`, what the column `FALLBACK` says of its title.

    Raises:
        Rejected: a sheet cannot hold them.
    """
    if max(len(topics), len(lines)) > _ROWS_OF_A_SHEET:
        raise Rejected(f"{path} has more rows than a sheet of Excel holds. Title it course by course.")
    if (lines["text"].str.len() > _LONGEST_CELL).any():
        row = int(lines.loc[lines["text"].str.len() > _LONGEST_CELL, "row"].iloc[0])
        raise Rejected(f"{path}, {LINES}, row {row:,}: the text is longer than a cell of Excel holds. Split the line.")
    sheet = _sheet(topics, TOPICS)
    if marks:
        sheet[FALLBACK] = [marks.get(row) for row in topics["row"].tolist()]
    write_workbook(sheet, _sheet(lines, LINES), out)


def _sheet(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """`table` as the sheet `name` holds it: times as durations, texts as a cell can hold them."""
    columns = {
        theirs: [timedelta(seconds=cell) if isinstance(cell, float) else as_cell(cell) for cell in table[ours].tolist()]
        for theirs, ours in NAMES[name].items()
    }
    return pd.DataFrame(columns, dtype=object)
