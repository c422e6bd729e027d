"""Read the raw cells of a folder of CSV and Parquet tables."""

from __future__ import annotations

import csv
import re
import sys
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.cell_values import as_seconds
from pipeline.data.problems import Problem
from pipeline.data.raw_sheets import (
    ROWS_OF_START,
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
from pipeline.data.single_values import Fault
from pipeline.data.text_encoding import declared_encoding, guess_encoding
from pipeline.data.workbook_schema import COLUMN_NAMES

TABLE_SUFFIXES = (".csv", ".parquet")

_MAX_UNPACKED, _MAX_RATIO = 1 << 29, 100  # bytes of a Parquet column, or multiples of its file's size
_ROWS_PER_BATCH = 2048
_SEPARATOR_LINE = "sep="  # Excel's hint, above everything else


def table_files(folder: Path) -> list[Path]:
    """Return the CSV and Parquet files of a folder, sorted."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in TABLE_SUFFIXES)


def read_folder(folder: Path, wanted: Wanted) -> tuple[dict[str, RawSheet], list[Problem]]:
    """Read the wanted tables of a folder; report each missing, duplicate, damaged or unused file."""
    sheets: dict[str, RawSheet] = {}
    problems: list[Problem] = []
    files = table_files(folder)
    for name in wanted:
        found = [file for file in files if normalise_names([file.stem]) == [name]]
        if not found:
            problems += _missing_table(folder, name, wanted)
        elif len(found) > 1:
            message = f"There are {len(found)} such files: {join_names([file.name for file in found])}."
            problems.append(structure_error("duplicate table", name, message, "Keep one of them."))
        elif not found[0].is_dir() and not found[0].stat().st_size:
            message, remedy = "The file is empty (0 bytes).", "Export it again."
            problems.append(structure_error("empty file", found[0].name, message, remedy))
        else:
            read = _read_csv if found[0].suffix.lower() == ".csv" else _read_parquet
            sheet, its_problems = read(found[0], wanted[name])
            sheets |= {name: sheet} if sheet else {}
            problems += its_problems
    ignored = [file.name for file in files if normalise_names([file.stem])[0] not in wanted]
    if ignored:
        message = f"Not used: {join_names(ignored)}."
        problems.append(Problem("warning", "ignored file", None, None, None, message, "Nothing to do."))
    return sheets, problems


def _missing_table(folder: Path, wanted: str, all_wanted: Wanted) -> list[Problem]:
    """Report a missing table; if a file seems to be meant, also the columns that it lacks."""
    message = f"There is no {wanted}.csv and no {wanted}.parquet in {folder}."
    unused = {name: file for file in table_files(folder) if (name := normalise_names([file.stem])[0]) not in all_wanted}
    near = nearest_name(wanted, [*unused])
    if near is None:
        return [structure_error("missing table", wanted, message, "Add one of them.")]
    file = unused[near]
    remedy = f"Rename {file.name} to {wanted}{file.suffix.lower()}, if it is that."
    problems = [structure_error("missing table", wanted, message, remedy)]
    sheet, _ = (_read_csv if file.suffix.lower() == ".csv" else _read_parquet)(file, ())
    if sheet:
        problems += missing_columns(file.name, sheet.header, sheet.header_row, tuple(COLUMN_NAMES[wanted]))
    return problems


def _read_csv(path: Path, wanted: Sequence[str]) -> tuple[RawSheet | None, list[Problem]]:
    problems: list[Problem] = []
    try:
        try:
            sheet = _parse_csv(path, wanted, _declared_encoding(path))
        except UnicodeDecodeError:
            encoding = guess_encoding(path.read_bytes())
            if encoding is None:
                raise
            sheet = _parse_csv(path, wanted, encoding)
            message = f"It is not UTF-8. It was read as {encoding}."
            remedy = "If letters look wrong, save it as 'CSV UTF-8'."
            problems = [Problem("warning", "guessed encoding", path.name, None, None, message, remedy)]
    except UnicodeError:
        message, remedy = "The file is not UTF-8 text.", "Save it as 'CSV UTF-8'."
        return None, [structure_error("not UTF-8", path.name, message, remedy)]
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, OSError) as error:
        remedy = "Check that the file has a header and that all quotation marks are closed."
        return None, [structure_error("not a table", path.name, f"It cannot be read ({error}).", remedy)]
    return sheet, problems


def _declared_encoding(path: Path) -> str:
    with path.open("rb") as file:
        encoding = declared_encoding(file.read(4))
    return "utf-8-sig" if encoding == "utf-8" else encoding


def _parse_csv(path: Path, wanted: Sequence[str], encoding: str) -> RawSheet:
    with path.open(encoding=encoding, newline="") as file:
        start = list(islice(file, ROWS_OF_START))
    skipped = 1 if start and start[0].lower().startswith(_SEPARATOR_LINE) else 0
    rows = [_cells(line, _separator(line)) for line in start[skipped:]]
    position, above = find_header(rows)
    top = skipped + position
    separator = start[0].strip()[len(_SEPARATOR_LINE) :] if skipped else ""
    separator = separator if len(separator) == 1 else _separator(start[top] if top < len(start) else "")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = pd.read_csv(
            path, sep=separator, skiprows=top, header=None, dtype="str", keep_default_na=False,
            skip_blank_lines=False, encoding=encoding, on_bad_lines="warn",
        )  # fmt: skip
    overlong = [int(row) for w in caught for row in re.findall(r"Skipping line (\d+)", str(w.message))]
    rows_read = pd.RangeIndex(top + 1, top + 1 + len(table) + len(overlong)).difference(overlong)
    table = table.set_axis(rows_read)
    misread: dict[str, dict[int, str]] = {}
    if overlong:
        left_out = _overlong_rows(path, encoding, separator, top, overlong, table.shape[1])
        table = pd.concat([table, left_out]).sort_index()
        misread["too many cells"] = dict.fromkeys(overlong, "The row has more cells than the header.")
    header = table.iloc[0].tolist()
    columns = {n: table[n].iloc[1:] for n, name in enumerate(normalise_names(header)) if name in wanted}
    misread["open quotation mark"] = _open_quotes(columns, normalise_names(header), separator)
    return RawSheet(path.name, header, top + 1, columns, above, misread)


def _separator(line: str) -> str:
    return max(",;\t", key=line.count)


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(separator)]


def _overlong_rows(
    path: Path, encoding: str, separator: str, top: int, rows: Sequence[int], width: int
) -> pd.DataFrame:
    """Read the rows with more cells than the header, which pandas leaves out. The last cell holds all the rest."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding=encoding, newline="") as file:
        records = dict(enumerate(csv.reader(islice(file, top, None), delimiter=separator), start=top + 1))
    found = [records.get(row, [""] * width) for row in rows]
    cells = [[*record[: width - 1], separator.join(record[width - 1 :])] for record in found]
    return pd.DataFrame(cells, index=list(rows), dtype="str")


def _open_quotes(columns: dict[int, pd.Series], header: Sequence[str], separator: str) -> dict[int, str]:
    """Find cells that swallowed other rows, because a quotation mark at their start is closed rows later."""
    if "timestamp" not in header:
        return {}
    time = header.index("timestamp")
    reasons = {}
    for cells in columns.values():
        for row, cell in cells[cells.str.contains("\n", regex=False)].items():
            inside = [parts for line in cell.split("\n")[1:] if len(parts := line.split(separator)) > time]
            times = as_seconds(pd.Series([parts[time].strip('"') for parts in inside], dtype="str"))
            if swallowed := int((times.fault == Fault.NONE).sum()):
                reasons[row] = f"A quotation mark is not closed: the cell also holds {swallowed:,} of the next rows."
    return reasons


def _read_parquet(path: Path, wanted: Sequence[str]) -> tuple[RawSheet | None, list[Problem]]:
    try:
        with pq.ParquetFile(path) as file:
            header = file.schema_arrow.names
            positions = [n for n, name in enumerate(normalise_names(header)) if name in wanted]
            limit = max(_MAX_UNPACKED, _MAX_RATIO * path.stat().st_size)
            columns = {n: _as_pandas(_read_column(file, header[n], limit)) for n in positions}
    except _ColumnTooLarge as error:
        message = f"Its column '{error}' unpacks to gigabytes."
        remedy = "Check how the file was made, or save it as CSV."
        return None, [structure_error("too large", path.name, message, remedy)]
    except (pa.ArrowException, OSError, ValueError) as error:
        message = f"It cannot be read ({describe_read_error(error)})."
        return None, [structure_error("not a table", path.name, message, "Write the file again.")]
    return RawSheet(path.name, header, 1, columns), []


class _ColumnTooLarge(Exception):
    """The named column would take far more memory than its file's size suggests."""


def _read_column(file: pq.ParquetFile, name: str, limit: int) -> pa.ChunkedArray:
    """Read a column in batches: a file can store a text once and repeat it a million times.

    Args:
        file: the open file.
        name: the column.
        limit: the largest allowed size in bytes.

    Raises:
        _ColumnTooLarge: the column has more than `limit` bytes.
    """
    kind = file.schema_arrow.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    chunks, size = [], 0
    for batch in file.iter_batches(_ROWS_PER_BATCH, columns=[name]):
        chunk = batch.column(0)
        chunks.append(chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk)
        size += chunks[-1].nbytes
        if size > limit:
            raise _ColumnTooLarge(name)
    return pa.chunked_array(chunks, type=kind)


def _as_pandas(column: pa.ChunkedArray) -> pd.Series:
    """Convert a Parquet column to text, numbers, durations or dates; a time of day becomes a duration."""
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
