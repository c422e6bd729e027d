"""Read the raw cells of a folder of CSV and Parquet tables."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.problems import Problem, problems_at_rows
from pipeline.data.raw_sheets import (
    RawSheet,
    Wanted,
    describe_read_error,
    join_names,
    normalise_names,
    structure_error,
)

TABLE_SUFFIXES = (".csv", ".parquet")

_MAX_UNPACKED, _MAX_RATIO = 1 << 29, 100  # bytes of a Parquet column, or multiples of its file's size
_ROWS_PER_BATCH = 2048


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
            message = f"There is no {name}.csv and no {name}.parquet in {folder}."
            problems.append(structure_error("missing table", name, message, "Add one of them."))
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


def _read_csv(path: Path, wanted: Sequence[str]) -> tuple[RawSheet | None, list[Problem]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            top, first = next(((n, line) for n, line in enumerate(file) if line.strip()), (0, ""))
        separator = max(",;\t", key=first.count)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = pd.read_csv(
                path, sep=separator, skiprows=top, header=None, dtype="str", keep_default_na=False,
                skip_blank_lines=False, encoding="utf-8-sig", on_bad_lines="warn",
            )  # fmt: skip
    except UnicodeDecodeError:
        message, remedy = "The file is not UTF-8 text.", "Save it as 'CSV UTF-8'."
        return None, [structure_error("not UTF-8", path.name, message, remedy)]
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        remedy = "Check that the file has a header and that all quotation marks are closed."
        return None, [structure_error("not a table", path.name, f"It cannot be read ({error}).", remedy)]
    overlong = [int(row) for w in caught for row in re.findall(r"Skipping line (\d+)", str(w.message))]
    rows = pd.RangeIndex(top + 1, top + 1 + len(table) + len(overlong)).difference(overlong)
    remedy = "Put quotation marks around text that contains a separator."
    pattern = structure_error("too many cells", path.name, "", remedy)
    problems = problems_at_rows(pattern, overlong, lambda i: "The row has more cells than the header.")
    header = table.iloc[0].tolist()
    columns = {
        n: table[n].iloc[1:].set_axis(rows[1:]) for n, name in enumerate(normalise_names(header)) if name in wanted
    }
    return RawSheet(path.name, header, top + 1, columns), problems


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
