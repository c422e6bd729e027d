"""Represent sheets with raw cells, and share helpers among the readers of Excel, CSV and Parquet files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from openpyxl.utils import get_column_letter

from pipeline.data.cell_values import as_key, as_text
from pipeline.data.problems import Problem, shorten
from pipeline.data.workbook_schema import COLUMN_NAMES, OTHER_NAMES

Wanted = Mapping[str, Sequence[str]]
"""Names of tables, and the columns of each."""

ROWS_OF_START = 100
"""The number of rows among which a header can be."""

_MAX_NAMES = 20
_MAX_ROWS_ABOVE_HEADER = 20
_COLUMNS_OF_A_TABLE = 4
_COLUMNS = {column for columns in COLUMN_NAMES.values() for column in columns}
_LETTERED_COLUMNS = 18_278  # up to ZZZ
_SIMILAR = 0.75  # of 1; "timestmap" is like "timestamp", "topic" is not like "transcript"


class ErrorValue(str):
    """Error values that Excel shows in a cell. A text with the same words is not an error."""

    __slots__ = ()


@dataclass(frozen=True)
class RawSheet:
    """A sheet with the raw cells of its wanted columns.

    Attributes:
        name: the name of the sheet or file.
        header: the cells of the header row, from column A.
        header_row: Excel's number of the header row.
        columns: the wanted columns by position; the index is Excel's number of the row.
        above: the rows above the header that hold something, as text.
        misread: by the kind of problem, why the cells of a row are not what they seem, by Excel's number of the row.
        merged: column position, first row and last row of merged cells that span several rows.
    """

    name: str
    header: Sequence[object]
    header_row: int
    columns: dict[int, pd.Series]
    above: Sequence[str] = ()
    misread: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    merged: Sequence[tuple[int, int, int]] = ()


def structure_error(kind: str, sheet: str | None, message: str, remedy: str, row: int | None = None) -> Problem:
    """Return an error of a sheet or file that belongs to no column."""
    return Problem("error", kind, sheet, row, None, message, remedy)


def join_names(names: Sequence[str]) -> str:
    """Join names for a message; a sheet may have thousands of columns, a folder thousands of files."""
    shown = [shorten(name) for name in names[:_MAX_NAMES]]
    more = [f"and {len(names) - len(shown):,} more"] if len(names) > len(shown) else []
    return ", ".join([*shown, *more]) or "nothing"


def normalise_names(names: Sequence[object]) -> list[str]:
    """Remove differences in the names of sheets or columns that a person overlooks: case and extra spaces."""
    return as_key(pd.Series(names, dtype=object)).str.lower().tolist()


def find_header(rows: Iterable[Sequence[object]]) -> tuple[int, list[str]]:
    """Find the header: the first row that names two columns of a workbook, else the first row that is not blank.

    A title, notes or an export's date may stand above it. A row with as many cells as a table is taken for data, so
    that a table without a header does not lose its first rows.

    Returns:
        The position of the header, and the text of each row above it that is not blank.
    """
    first: int | None = None
    above: list[str] = []
    for position, row in enumerate(rows):
        names = [name for name in normalise_names(row) if name]
        if sum(map(_names_a_column, names)) > 1:
            return position, above
        if not names:
            continue
        first = position if first is None else first
        if len(names) >= _COLUMNS_OF_A_TABLE or len(above) == _MAX_ROWS_ABOVE_HEADER:
            break
        above.append(" ".join(text for text in as_text(pd.Series(row, dtype=object)) if text.strip()))
    return first or 0, []


def _names_a_column(name: str) -> bool:
    return any(name == column or name in OTHER_NAMES[column] for column in _COLUMNS)


def missing_columns(sheet: str, header: Sequence[object], header_row: int, wanted: Sequence[str]) -> list[Problem]:
    """Report each wanted column that a header lacks, with the column that was probably meant."""
    names = normalise_names(header)
    unused = [name for name in names if name and name not in wanted]
    problems = []
    for missing in [name for name in wanted if name not in names]:
        near = nearest_name(missing, unused)
        if near is None:
            present = join_names([name for name in names if name])
            message = f"There is no column '{missing}'. Row {header_row} holds: {present}."
            remedy = f"Add it, or write '{missing}' in row {header_row} above the column that holds it."
        else:
            unused.remove(near)
            message = f"There is no column '{missing}'."
            place = column_place(names.index(near), near)
            remedy = f"In row {header_row}, rename column {place} to '{missing}', if it is that."
        problems.append(Problem("error", "missing column", sheet, header_row, missing, message, remedy))
    return problems


def column_place(position: int, name: str) -> str:
    """Describe a column as Excel shows it, with its header: `D (timestamp)`. A CSV may have more columns than Excel."""
    letters = get_column_letter(position + 1) if position < _LETTERED_COLUMNS else f"{position + 1:,}"
    return f"{letters} ({name})"


def nearest_name(wanted: str, present: Sequence[str]) -> str | None:
    """Return the name of `present`, in the form of `normalise_names`, that was probably meant as `wanted`."""
    if other := next((name for name in OTHER_NAMES.get(wanted, ()) if name in present), None):
        return other
    bare = {name.replace("_", " "): name for name in present}
    close = difflib.get_close_matches(wanted.replace("_", " "), bare, n=1, cutoff=_SIMILAR)
    return bare[close[0]] if close else None


def describe_read_error(error: BaseException) -> str:
    """Return the first line of an error's message.

    Raises:
        BaseException: `error` itself, if no file can cause it, such as an interrupt. A panic of calamine is caused by a
            file, although it is no `Exception`.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return shorten(str(error).partition("\n")[0], 200) or type(error).__name__
