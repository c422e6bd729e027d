"""Open a workbook or a folder of tables, and select the wanted columns as raw cells."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.cell_values import is_blank
from pipeline.data.excel_reader import read_excel_sheets
from pipeline.data.folder_reader import read_folder, table_files
from pipeline.data.problems import Problem, shorten
from pipeline.data.raw_sheets import RawSheet, column_place, join_names, missing_columns, normalise_names
from pipeline.data.workbook_schema import COLUMN_NAMES
from pipeline.errors import UsageError


@dataclass(frozen=True)
class Table:
    """The wanted columns of one sheet or file.

    Attributes:
        name: the name of the sheet or file.
        cells: raw cells without blank rows, of dtype `object` from a workbook. The index is Excel's number of the row.
        header_row: Excel's number of the header row.
        places: for each column the letter and the header: "D (timestamp)".
        misread: by the kind of problem, why the cells of a row are not what they seem, by row.
        merged: for each column, the first and last row of merged cells.
    """

    name: str
    header_row: int
    cells: pd.DataFrame
    places: dict[str, str]
    misread: Mapping[str, Mapping[int, str]]
    merged: dict[str, list[tuple[int, int]]]


def is_workbook(path: Path) -> bool:
    """Return whether `path` is a spreadsheet, or a folder with at least one table of a workbook.

    Only .xlsx and .xlsm can be opened. The error for the others says how to save them.
    """
    if path.is_dir():
        return any(file.stem.strip().lower() in COLUMN_NAMES for file in table_files(path))
    return path.suffix.lower() in (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods") and path.is_file()


def open_tables(
    path: Path, wanted: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> tuple[dict[str, Table], list[Problem]]:
    """Read tables from a workbook or a folder.

    A table or column that cannot be read is left out, with a problem that names it.

    Args:
        path: an .xlsx, or a folder with .csv and .parquet files.
        wanted: the names of the tables, and the columns of each.
        optional: columns that are ignored. Other unwanted columns are ignored with a warning.

    Returns:
        The tables by name, and the problems of their structure.

    Raises:
        UsageError: `path` does not exist, or is neither a file nor a folder.
    """
    if reason := _why_unreadable(path):
        files = " and ".join(f"{name}.csv (or .parquet)" for name in wanted)
        raise UsageError(f"{shorten(str(path), 300)} {reason}. Use an .xlsx workbook, or a folder with {files}.")
    sheets, problems = read_folder(path, wanted) if path.is_dir() else read_excel_sheets(path, wanted)
    tables = {}
    for name, sheet in sheets.items():
        tables[name], found = _select_columns(sheet, wanted[name], optional)
        problems += found
    return tables, problems


def _why_unreadable(path: Path) -> str | None:
    """Return why `path` cannot be read. Reading from a pipe or a device might never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return "does not exist"
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "is neither a file nor a folder"


def _select_columns(sheet: RawSheet, wanted: Sequence[str], optional: Sequence[str]) -> tuple[Table, list[Problem]]:
    """Select the wanted columns, and report each missing, duplicate or unused column."""
    names = normalise_names(sheet.header)
    places = [column_place(n, name) for n, name in enumerate(names)]
    position = {name: names.index(name) for name in wanted if name in names}

    problems = missing_columns(sheet.name, sheet.header, sheet.header_row, wanted)
    for name in position:
        for again in [n for n, other in enumerate(names) if other == name][1:]:
            message = f"The column '{name}' is also in {places[position[name]]}."
            place = places[again]
            problems.append(
                Problem("error", "duplicate column", sheet.name, sheet.header_row, place, message, "Keep one.")
            )
    ignored = [places[n] for n, name in enumerate(names) if name and name not in {*wanted, *optional}]
    if ignored:
        message, remedy = f"Not used: {join_names(ignored)}.", "Nothing to do, unless a name is misspelt."
        problems.append(Problem("warning", "ignored column", sheet.name, sheet.header_row, None, message, remedy))

    if sheet.above:
        message = f"Not used, because the header is in row {sheet.header_row}: {join_names(sheet.above)}."
        problems.append(Problem("warning", "rows above the header", sheet.name, None, None, message, "Nothing to do."))

    cells = pd.DataFrame({name: sheet.columns[n] for name, n in position.items()})
    if position:
        cells = _without_blank_rows(cells)
        if cells.empty:
            message, remedy = "It holds no rows.", "Add rows below the header."
            problems.append(Problem("error", "no rows", sheet.name, None, None, message, remedy))
    merged = {name: [(first, last) for n, first, last in sheet.merged if n == at] for name, at in position.items()}
    placed = {name: places[n] for name, n in position.items()}
    return Table(sheet.name, sheet.header_row, cells, placed, sheet.misread, merged), problems


def _without_blank_rows(cells: pd.DataFrame) -> pd.DataFrame:
    empty = is_blank(cells.iloc[:, 0])
    for name in cells.columns[1:]:
        if empty.any():
            empty = empty & is_blank(cells[name])
    return cells[~empty] if empty.any() else cells
