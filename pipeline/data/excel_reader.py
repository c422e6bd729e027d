"""Read the raw cells of an Excel workbook."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
from python_calamine import CalamineSheet, CalamineWorkbook, PasswordError, load_workbook

from pipeline.data.folder_reader import TABLE_SUFFIXES
from pipeline.data.problems import Problem
from pipeline.data.raw_sheets import (
    ROWS_OF_START,
    ErrorValue,
    RawSheet,
    Wanted,
    describe_read_error,
    find_header,
    join_names,
    missing_columns,
    nearest_name,
    normalise_names,
    structure_error,
)
from pipeline.data.workbook_schema import COLUMN_NAMES
from pipeline.data.xlsx_archive import Archive, ErrorCell, UnsafeArchive, inspect_archive

_COMPOUND_FILE = bytes.fromhex("D0CF11E0A1B11AE1")  # first bytes of .xls files and of encrypted .xlsx files
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_EXCEL_EPOCH = dt.datetime(1899, 12, 30)


def read_excel_sheets(path: Path, wanted: Wanted) -> tuple[dict[str, RawSheet], list[Problem]]:
    """Read the wanted sheets of a workbook; report each missing, duplicate, damaged or unused sheet."""
    opened = _open(path)
    if isinstance(opened, Problem):
        return {}, [opened]
    book, archive = opened
    names = normalise_names(book.sheet_names)
    sheets: dict[str, RawSheet] = {}
    problems: list[Problem] = []
    for name in wanted:
        found = [sheet for sheet, normalised in zip(book.sheet_names, names, strict=True) if normalised == name]
        if not found:
            problems += _missing_sheet(book, name, [each for each in names if each not in wanted])
        elif len(found) > 1:
            message = f"The workbook has {len(found)} such sheets: {join_names(found)}."
            problems.append(
                structure_error("duplicate sheet", name, message, "Keep one of them, or rename the others.")
            )
        else:
            try:
                with _silence_stderr():
                    sheets[name] = _read_sheet(path, book.get_sheet_by_name(found[0]), archive, wanted[name])
            except _UnreadableRow as error:
                message = f"A cell cannot be read ({error.reason}). It may hold a date or duration out of range."
                remedy = "Correct it in Excel, and save."
                problems.append(structure_error("damaged row", name, message, remedy, error.row))
            except BaseException as error:  # calamine and openpyxl raise many types of errors for a damaged sheet
                message = f"It cannot be read ({describe_read_error(error)})."
                problems.append(structure_error("damaged sheet", name, message, "Save the workbook again from Excel."))
    ignored = [sheet for sheet, normalised in zip(book.sheet_names, names, strict=True) if normalised not in wanted]
    if ignored and sheets and len(sheets) == len(wanted):
        message = f"Not used: {join_names(ignored)}."
        problems.append(Problem("warning", "ignored sheet", None, None, None, message, "Nothing to do."))
    return sheets, problems


def _open(path: Path) -> tuple[CalamineWorkbook, Archive] | Problem:
    """Open a workbook, and inspect its archive first."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_COMPOUND_FILE))
            is_compound = start == _COMPOUND_FILE
            encrypted = is_compound and _ENCRYPTED in file.read()
        if not start:
            return structure_error("empty file", None, f"{path.name} is empty (0 bytes).", "Export or copy it again.")
        if encrypted:
            raise PasswordError
        if is_compound:
            raise ValueError("its format is that of Excel before 2007")
        archive = inspect_archive(path)
        return load_workbook(path), archive
    except PasswordError:
        return structure_error("password", None, f"{path.name} has a password.", "Remove it in Excel, and save.")
    except UnsafeArchive as unsafe:
        return unsafe.problem
    except BaseException as error:  # each part of an archive can be damaged in its own way
        message, remedy = (
            f"{path.name} is not a workbook ({describe_read_error(error)}).",
            "Save it from Excel as .xlsx.",
        )
        if path.suffix.lower() in TABLE_SUFFIXES:
            message = f"{path.name} is one table, and a workbook has two: topics and lines."
            remedy = f"Give the folder that holds both: {' and '.join(f'{name}.csv' for name in COLUMN_NAMES)}."
        return structure_error("not a workbook", None, message, remedy)


class _UnreadableRow(Exception):
    """calamine cannot convert a cell of a row."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row = row
        self.reason = reason


def _rows(sheet: CalamineSheet) -> Iterator[list[Any]]:
    """Yield each row of cells.

    Raises:
        _UnreadableRow: calamine cannot convert a cell of the row.
    """
    row = 1
    try:
        for cells in sheet.iter_rows():
            yield cells
            row += 1
    except BaseException as error:
        raise _UnreadableRow(row, describe_read_error(error)) from None


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Hide the stack trace that calamine prints when it panics; our message replaces it."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _read_sheet(path: Path, sheet: CalamineSheet, archive: Archive, wanted: Sequence[str]) -> RawSheet:
    left = [""] * (sheet.start[1] if sheet.start else 0)  # calamine leaves out empty columns on the left
    rows = _rows(sheet)
    start = list(islice(rows, ROWS_OF_START))
    top, above = find_header(start)
    header = [*left, *(start[top] if start else [])]
    rows = chain(start[top + 1 :], rows)
    positions = [n for n, name in enumerate(normalise_names(header)) if name in wanted]
    body = list(map(itemgetter(*(n - len(left) for n in positions), slice(0, 0)), rows)) if positions else []
    index = pd.RangeIndex(top + 2, top + 2 + len(body))
    columns = {}
    for n, cells in zip(positions, zip(*body, strict=True) if body else [[]] * len(positions), strict=False):
        # Python counts True as the number 1.
        texts = [("TRUE" if cell else "FALSE") if cell is True or cell is False else cell for cell in cells]
        column = pd.Series(texts, index=index, dtype=object)
        if archive.has_negative_numbers:
            column = _with_negative_times(column, path, sheet.name, n)
        columns[n] = _with_errors(column, n, archive.errors.get(sheet.name, ()))
    merged = [
        (n, first + 1, last + 1)
        for (first, left_column), (last, right_column) in sheet.merged_cell_ranges or ()
        for n in columns
        if first < last and left_column <= n <= right_column
    ]
    return RawSheet(sheet.name, header, top + 1, columns, above, merged=merged)


def _missing_sheet(book: CalamineWorkbook, wanted: str, unused: Sequence[str]) -> list[Problem]:
    """Report a missing sheet; if one seems to be meant, also the columns that it lacks."""
    message = f"There is no such sheet. The workbook has: {join_names(book.sheet_names)}."
    near = nearest_name(wanted, unused)
    if near is None:
        return [structure_error("missing sheet", wanted, message, f"Add it, or rename a sheet to '{wanted}'.")]
    meant = next(name for name in book.sheet_names if normalise_names([name]) == [near])
    problems = [structure_error("missing sheet", wanted, message, f"Rename the sheet '{meant}' to '{wanted}'.")]
    with _silence_stderr(), suppress(_UnreadableRow):
        sheet = book.get_sheet_by_name(meant)
        rows = list(islice(_rows(sheet), ROWS_OF_START))
        top, _ = find_header(rows)
        left = [""] * (sheet.start[1] if sheet.start else 0)
        problems += missing_columns(meant, [*left, *(rows[top] if rows else [])], top + 1, tuple(COLUMN_NAMES[wanted]))
    return problems


def _with_errors(cells: pd.Series, position: int, errors: Sequence[ErrorCell]) -> pd.Series:
    """Fill in the errors, such as #N/A, that Excel shows; calamine returns empty cells for them."""
    for error in errors:
        if error.column == position + 1 and error.row in cells.index:
            cells[error.row] = ErrorValue(error.shows)
    return cells


def _with_negative_times(cells: pd.Series, path: Path, sheet: str, position: int) -> pd.Series:
    """Turn negative times into negative durations.

    Excel shows ##### for them. calamine returns the rest of the day before: 23:59:55 for minus five seconds. Only
    openpyxl can tell them apart. It is much slower, so it reads only workbooks that hold negative numbers.
    """
    times = cells.index[cells.map(type).eq(dt.time)]
    if times.empty:
        return cells
    column = {"min_col": position + 1, "max_col": position + 1, "min_row": times[0], "max_row": times[-1]}
    rows = openpyxl.load_workbook(path, read_only=True, data_only=True)[sheet].iter_rows(**column, values_only=True)
    for row, (cell,) in enumerate(rows, start=times[0]):
        if isinstance(cell, dt.datetime) and cell < _EXCEL_EPOCH:
            cells[row] = cell - _EXCEL_EPOCH
    return cells
