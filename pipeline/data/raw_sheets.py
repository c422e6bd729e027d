"""Represent sheets with raw cells, and share helpers among the readers of Excel, CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.data.cell_values import as_name
from pipeline.data.problems import Problem, shorten

Wanted = Mapping[str, Sequence[str]]
"""Names of tables, and the columns of each."""

_MAX_NAMES = 20


@dataclass(frozen=True)
class RawSheet:
    """A sheet with the raw cells of its wanted columns.

    Attributes:
        name: the name of the sheet or file.
        header: the cells of the header row, from column A.
        header_row: Excel's number of the header row.
        columns: the wanted columns by position; the index is Excel's number of the row.
    """

    name: str
    header: Sequence[object]
    header_row: int
    columns: dict[int, pd.Series]


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
    return as_name(pd.Series(names, dtype=object)).str.lower().tolist()


def describe_read_error(error: BaseException) -> str:
    """Return the first line of an error's message.

    Raises:
        BaseException: `error` itself, if no file can cause it, such as an interrupt. A panic of calamine is caused by a
            file, although it is no `Exception`.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return shorten(str(error).partition("\n")[0], 200) or type(error).__name__
