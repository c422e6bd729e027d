"""Opens a workbook or a folder of tables and finds the wanted columns: raw cells, each in the row that Excel shows."""

from __future__ import annotations

import datetime as dt
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl.utils import get_column_letter
from python_calamine import CalamineSheet, CalamineWorkbook, PasswordError, load_workbook

from pipeline.data.cells import as_name, blank
from pipeline.data.problems import Problem, one_by_one, short
from pipeline.data.xlsx_archive import Archive, ErrorCell, Unfit, look_through
from pipeline.errors import UsageError

Wanted = Mapping[str, Sequence[str]]  # the tables, and the columns of each

_COMPOUND_FILE = bytes.fromhex("D0CF11E0A1B11AE1")  # old .xls files start so, and so do encrypted .xlsx files
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_UNPACKED, _UNPACKED_RATIO = 1 << 29, 100  # bytes of a column of Parquet, or times the size of its file
_ROWS_AT_ONCE = 2048
_LISTED_NAMES = 20
_LAST_NAMED = 18_278  # ZZZ
_SAVE_ANEW = "Save it anew from Excel."
_EXCEL_EPOCH = dt.datetime(1899, 12, 30)


@dataclass(frozen=True)
class Table:
    """The wanted columns of one sheet or file.

    cells: raw cells, of dtype `object` from a workbook; without blank rows; the index is the row as Excel shows it.
    places: for each of its columns the letter and the header: "D (timestamp)".
    """

    name: str
    cells: pd.DataFrame
    places: dict[str, str]


@dataclass(frozen=True)
class _Grid:
    """A sheet as it stands: the header by position, its row, and the wanted columns under it by position."""

    name: str
    header: list[str]
    header_row: int
    columns: dict[int, pd.Series]


def open_tables(path: Path, wanted: Wanted, optional: Sequence[str] = ()) -> tuple[dict[str, Table], list[Problem]]:
    """The wanted tables of the workbook or folder at `path`, and what is wrong with their shape.

    What cannot be read is left out, be it a table or a column, and a problem says so. Columns in `optional` are ignored
    without a word, others with a warning.

    Raises:
        UsageError: there is no file and no folder at `path`.
    """
    if wrong := _no_file_or_folder(path):
        raise UsageError(f"{short(str(path), 300)} {wrong}. Give an .xlsx workbook, or a folder with {_files(wanted)}.")
    grids, problems = _from_folder(path, wanted) if path.is_dir() else _from_workbook(path, wanted)
    tables = {}
    for name, grid in grids.items():
        tables[name], found = _pick(grid, wanted[name], optional)
        problems += found
    return tables, problems


def _no_file_or_folder(path: Path) -> str | None:
    """What is wrong with `path`; reading from a pipe or a device might never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return "does not exist"
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "is neither a file nor a folder"


def _error(kind: str, sheet: str | None, message: str, remedy: str, row: int | None = None) -> Problem:
    return Problem("error", kind, sheet, row, None, message, remedy)


def _files(wanted: Wanted) -> str:
    return " and ".join(f"{name}.csv (or .parquet)" for name in wanted)


def _pick(grid: _Grid, wanted: Sequence[str], optional: Sequence[str]) -> tuple[Table, list[Problem]]:
    """The wanted columns of `grid`, and a problem for each that is missing, doubled or not wanted."""
    names = _plain(grid.header)
    places = [f"{_letters(n + 1)} ({name})" for n, name in enumerate(names)]
    at = {name: names.index(name) for name in wanted if name in names}

    problems = []
    for name in wanted:
        if name not in at:
            here = _listed([name for name in names if name])
            message = f"There is no column '{name}'. Row {grid.header_row} holds: {here}."
            remedy = f"Add it, or write '{name}' in row {grid.header_row} above the column that holds it."
            problems.append(Problem("error", "missing column", grid.name, grid.header_row, name, message, remedy))
        for again in [n for n, other in enumerate(names) if other == name][1:]:
            message = f"The column '{name}' is also in {places[at[name]]}."
            problems.append(
                Problem("error", "doubled column", grid.name, grid.header_row, places[again], message, "Keep one.")
            )
    ignored = [places[n] for n, name in enumerate(names) if name and name not in {*wanted, *optional}]
    if ignored:
        message, remedy = f"Not used: {_listed(ignored)}.", "Nothing to do, unless a name is misspelt."
        problems.append(Problem("warning", "ignored column", grid.name, grid.header_row, None, message, remedy))

    cells = pd.DataFrame({name: grid.columns[n] for name, n in at.items()})
    if at:
        cells = _without_blank_rows(cells)
        if cells.empty:
            problems.append(_error("no rows", grid.name, "It holds no rows.", "Fill it in below the header."))
    return Table(grid.name, cells, {name: places[n] for name, n in at.items()}), problems


def _letters(column: int) -> str:
    """As Excel names it; a file may have more columns than it has names for."""
    return get_column_letter(column) if column <= _LAST_NAMED else f"{column:,}"


def _listed(names: Sequence[str]) -> str:
    """The first of them: a sheet may have thousands of columns, a folder thousands of files."""
    shown = [short(name) for name in names[:_LISTED_NAMES]]
    more = [f"and {len(names) - len(shown):,} more"] if len(names) > len(shown) else []
    return ", ".join([*shown, *more]) or "nothing"


def _plain(names: Sequence[object]) -> list[str]:
    """Names of sheets or columns, without what a person overlooks: case and stray spaces."""
    return as_name(pd.Series(names, dtype=object)).str.lower().tolist()


def _without_blank_rows(cells: pd.DataFrame) -> pd.DataFrame:
    empty = blank(cells.iloc[:, 0])
    for name in cells.columns[1:]:
        if empty.any():
            empty = empty & blank(cells[name])
    return cells[~empty] if empty.any() else cells


def _from_workbook(path: Path, wanted: Wanted) -> tuple[dict[str, _Grid], list[Problem]]:
    opened = _opened(path)
    if isinstance(opened, Problem):
        return {}, [opened]
    book, archive = opened
    plain = _plain(book.sheet_names)
    grids, problems = {}, []
    for name in wanted:
        found = [sheet for sheet, its in zip(book.sheet_names, plain, strict=True) if its == name]
        if not found:
            message = f"There is no such sheet. The workbook has: {_listed(book.sheet_names)}."
            problems.append(_error("missing sheet", name, message, f"Add it, or rename a sheet to '{name}'."))
        elif len(found) > 1:
            message = f"It is there {len(found)} times: {_listed(found)}."
            problems.append(_error("doubled sheet", name, message, "Keep one of them, or rename the others."))
        else:
            try:
                with _in_silence():
                    grids[name] = _sheet(path, book.get_sheet_by_name(found[0]), archive, wanted[name])
            except _UnreadableRow as error:
                message = f"A cell in it cannot be read ({error.why}): a date or duration beyond all bounds, perhaps."
                problems.append(_error("damaged row", name, message, "Correct it in Excel, and save.", error.row))
            except BaseException as error:  # calamine and openpyxl raise all sorts of things for a damaged sheet
                problems.append(_error("damaged sheet", name, f"It cannot be read ({_why(error)}).", _SAVE_ANEW))
    ignored = [sheet for sheet, its in zip(book.sheet_names, plain, strict=True) if its not in wanted]
    if ignored and grids:
        message = f"Not used: {_listed(ignored)}."
        problems.append(Problem("warning", "ignored sheet", None, None, None, message, "Nothing to do."))
    return grids, problems


def _opened(path: Path) -> tuple[CalamineWorkbook, Archive] | Problem:
    try:
        with path.open("rb") as file:
            start = file.read(len(_COMPOUND_FILE))
            is_compound = start == _COMPOUND_FILE
            encrypted = is_compound and _ENCRYPTED in file.read()
        if not start:
            return _error("empty file", None, f"{path.name} is empty (0 bytes).", "Export or copy it once more.")
        if encrypted:
            raise PasswordError
        if is_compound:
            raise ValueError("it is one of Excel before 2007")
        archive = look_through(path)
        return load_workbook(path), archive
    except PasswordError:
        return _error("password", None, f"{path.name} has a password.", "Take it off in Excel, and save.")
    except Unfit as unfit:
        return unfit.problem
    except BaseException as error:  # each part of an archive can be damaged in a way of its own
        remedy = "Save it from Excel as .xlsx."
        if path.suffix.lower() in _READERS:
            remedy = "Give the folder that holds both tables, not one file."
        return _error("not a workbook", None, f"{path.name} is not a workbook ({_why(error)}).", remedy)


def _why(error: BaseException) -> str:
    """In short.

    Raises:
        `error`, where it is nothing that a file can cause; what calamine panics with is no `Exception`, though.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return short(str(error).partition("\n")[0], 200) or type(error).__name__


@dataclass
class _UnreadableRow(Exception):
    row: int
    why: str


def _rows(sheet: CalamineSheet) -> Iterator[list[Any]]:
    """Each row of cells.

    Raises:
        _UnreadableRow: calamine cannot say what a cell in it holds.
    """
    row = 1
    try:
        for cells in sheet.iter_rows():
            yield cells
            row += 1
    except BaseException as error:
        raise _UnreadableRow(row, _why(error)) from None


@contextmanager
def _in_silence() -> Iterator[None]:
    """calamine, where it panics, tells the terminal how; whoever reads our refusal has no use for that."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _sheet(path: Path, sheet: CalamineSheet, archive: Archive, wanted: Sequence[str]) -> _Grid:
    left = [""] * (sheet.start[1] if sheet.start else 0)  # empty columns, of which calamine hands out none
    rows = _rows(sheet)
    top, header = next(((n, row) for n, row in enumerate(rows) if any(str(cell).strip() for cell in row)), (0, []))
    header = [*left, *header]
    at = [n for n, name in enumerate(_plain(header)) if name in wanted]
    body = list(map(itemgetter(*(n - len(left) for n in at), slice(0, 0)), rows)) if at else []
    index = pd.RangeIndex(top + 2, top + 2 + len(body))
    columns = {}
    for n, cells in zip(at, zip(*body, strict=True) if body else [[]] * len(at), strict=False):
        # True would pass for the number 1.
        texts = [("TRUE" if cell else "FALSE") if cell is True or cell is False else cell for cell in cells]
        column = pd.Series(texts, index=index, dtype=object)
        if archive.below_zero:
            column = _with_negative_times(column, path, sheet.name, n)
        columns[n] = _with_errors(column, n, archive.errors.get(sheet.name, ()))
    return _Grid(sheet.name, header, top + 1, columns)


def _with_errors(cells: pd.Series, position: int, errors: Sequence[ErrorCell]) -> pd.Series:
    """With what Excel shows in place of a result, such as #N/A, for which calamine has an empty cell."""
    for error in errors:
        if error.column == position + 1 and error.row in cells.index:
            cells[error.row] = error.shows
    return cells


def _with_negative_times(cells: pd.Series, path: Path, sheet: str, position: int) -> pd.Series:
    """Times below zero as durations below zero.

    Excel shows ##### for them, and calamine the time that is left of the day before: 23:59:55 for minus five seconds.
    openpyxl, far slower, tells them apart; it is asked only where the workbook holds numbers below zero.
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


def table_files(folder: Path) -> list[Path]:
    """The files in `folder` that a table can be read from, sorted."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _READERS)


def _from_folder(folder: Path, wanted: Wanted) -> tuple[dict[str, _Grid], list[Problem]]:
    grids, problems = {}, []
    files = table_files(folder)
    for name in wanted:
        found = [file for file in files if _plain([file.stem]) == [name]]
        if not found:
            message = f"There is no {name}.csv and no {name}.parquet in {folder}."
            problems.append(_error("missing table", name, message, "Add one of them."))
        elif len(found) > 1:
            message = f"It is there {len(found)} times: {_listed([file.name for file in found])}."
            problems.append(_error("doubled table", name, message, "Keep one of them."))
        elif not found[0].is_dir() and not found[0].stat().st_size:
            problems.append(_error("empty file", found[0].name, "It is empty (0 bytes).", "Export it once more."))
        else:
            grid, unfit = _READERS[found[0].suffix.lower()](found[0], wanted[name])
            grids |= {name: grid} if grid else {}
            problems += unfit
    ignored = [file.name for file in files if _plain([file.stem])[0] not in wanted]
    if ignored:
        message = f"Not used: {_listed(ignored)}."
        problems.append(Problem("warning", "ignored file", None, None, None, message, "Nothing to do."))
    return grids, problems


def _csv(path: Path, wanted: Sequence[str]) -> tuple[_Grid | None, list[Problem]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            top, first = next(((n, line) for n, line in enumerate(file) if line.strip()), (0, ""))
        separator = max(",;\t", key=first.count)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            grid = pd.read_csv(
                path, sep=separator, skiprows=top, header=None, dtype="str", keep_default_na=False,
                skip_blank_lines=False, encoding="utf-8-sig", on_bad_lines="warn",
            )  # fmt: skip
    except UnicodeDecodeError:
        return None, [_error("not UTF-8", path.name, "It is not UTF-8 text.", "Save it as 'CSV UTF-8'.")]
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        remedy = "See that it has a header and that every quotation mark is closed."
        return None, [_error("not a table", path.name, f"It cannot be read ({error}).", remedy)]
    overlong = [int(row) for w in caught for row in re.findall(r"Skipping line (\d+)", str(w.message))]
    rows = pd.RangeIndex(top + 1, top + 1 + len(grid) + len(overlong)).difference(overlong)
    pattern = _error("too many cells", path.name, "", "Put quotation marks around text that holds a separator.")
    problems = one_by_one(pattern, overlong, lambda i: "The row has more cells than the header.")
    header = grid.iloc[0].tolist()
    columns = {n: grid[n].iloc[1:].set_axis(rows[1:]) for n, name in enumerate(_plain(header)) if name in wanted}
    return _Grid(path.name, header, top + 1, columns), problems


def _parquet(path: Path, wanted: Sequence[str]) -> tuple[_Grid | None, list[Problem]]:
    try:
        with pq.ParquetFile(path) as file:
            header = file.schema_arrow.names
            wanted_at = [n for n, name in enumerate(_plain(header)) if name in wanted]
            most = max(_UNPACKED, _UNPACKED_RATIO * path.stat().st_size)
            columns = {n: _as_pandas(_column(file, header[n], most)) for n in wanted_at}
    except _TooLarge as error:
        remedy = "See how it was made, or save it as CSV."
        return None, [_error("too large", path.name, f"Its column '{error}' unpacks to gigabytes.", remedy)]
    except (pa.ArrowException, OSError, ValueError) as error:
        return None, [_error("not a table", path.name, f"It cannot be read ({_why(error)}).", "Write it anew.")]
    return _Grid(path.name, header, 1, columns), []


class _TooLarge(Exception):
    """A column, that is named, would take more memory than its file accounts for."""


def _column(file: pq.ParquetFile, name: str, most: int) -> pa.ChunkedArray:
    """A few rows at a time: a text may stand once in the file, and be meant a million times.

    Raises:
        _TooLarge: it has more than `most` bytes.
    """
    kind = file.schema_arrow.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    chunks, size = [], 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[name]):
        chunk = batch.column(0)
        chunks.append(chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk)
        size += chunks[-1].nbytes
        if size > most:
            raise _TooLarge(name)
    return pa.chunked_array(chunks, type=kind)


def _as_pandas(column: pa.ChunkedArray) -> pd.Series:
    """A column of Parquet as text, numbers, durations or dates; a time of day is a duration."""
    kind = column.type
    if pa.types.is_time(kind):
        column = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.int64())
        column = column.cast(pa.duration(kind.unit))
    elif pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_primitive(kind) and not pa.types.is_boolean(kind)):
        column = column.cast(pa.large_string())
    series = column.combine_chunks().to_pandas()
    return series.set_axis(pd.RangeIndex(2, 2 + len(series)))


_READERS = {".csv": _csv, ".parquet": _parquet}
