"""Write an Excel workbook."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from itertools import chain
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pandas as pd
from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from pipeline.data.workbook_schema import COLUMN_NAMES, FALLBACK, LINES, SPEAKER, TOPICS
from pipeline.errors import Rejected, UsageError
from pipeline.files import file_aside

_MAX_ROWS = 1_048_576 - 1  # of a sheet, without the header
LONGEST_CELL = 32_767
_WIDTHS = {"A": 28, "B": 12, "C": 12, "D": 90}
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def default_output(workbook: Path) -> Path:
    """Return the default path of the titled copy: `lessons.titled.xlsx` for `lessons.xlsx` or the folder `lessons`."""
    return workbook.with_name(f"{workbook.name if workbook.is_dir() else workbook.stem}.titled.xlsx")


def require_xlsx(out: Path) -> None:
    """Check the name of an output file.

    Raises:
        UsageError: `out` does not end in .xlsx.
    """
    if out.suffix.lower() != ".xlsx":
        raise UsageError(f"--out {out} must end in .xlsx, because a titled workbook is an Excel file.")


def require_writable(out: Path, *, overwrite: bool) -> None:
    """Check that an output file does not exist yet, or may be overwritten.

    Raises:
        UsageError: `out` is a folder, or it exists and must not be overwritten.
    """
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder. Name a file.")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists already. Name another file with --out, or add --overwrite.")


def fit_into_cell(text: str) -> str:
    """Remove characters that an Excel cell cannot hold, and cut the text to the longest cell."""
    return ILLEGAL_CHARACTERS_RE.sub(" ", text).strip()[:LONGEST_CELL]


def write_workbook(path: Path, topics: pd.DataFrame, lines: pd.DataFrame, out: Path, notes: Mapping[int, str]) -> None:
    """Write topics and lines, as `read_workbook` returns them, to an .xlsx.

    Args:
        path: the source, named in messages.
        topics: the topics.
        lines: the lines. The column `SPEAKER` is optional, and left out if it is empty.
        out: the file to write.
        notes: by row of `topics`, the note in the column `FALLBACK`. Without notes there is no such column.

    Raises:
        Rejected: a sheet or a cell of Excel cannot hold the content.
    """
    if max(len(topics), len(lines)) > _MAX_ROWS:
        raise Rejected(f"{path} has more rows than a sheet of Excel can hold. Title it course by course.")
    too_long = lines["text"].str.len() > LONGEST_CELL
    if too_long.any():
        row = int(lines.loc[too_long, "row"].iloc[0])
        raise Rejected(
            f"{path}, {LINES}, row {row:,}: the text is longer than a cell of Excel can hold. Split the line."
        )
    sheet, spoken = _with_file_columns(topics, TOPICS), _with_file_columns(lines, LINES)
    if notes:
        sheet[FALLBACK] = [notes.get(row) for row in topics["row"].tolist()]
    if SPEAKER in lines and lines[SPEAKER].any():
        spoken[SPEAKER] = [fit_into_cell(name) or None for name in lines[SPEAKER].tolist()]
    write_sheets(sheet, spoken, out)


def _with_file_columns(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rename the columns of a table to those of a workbook; turn seconds into durations, and fit texts into cells."""
    columns = {
        in_file: [
            timedelta(seconds=cell) if isinstance(cell, float) else fit_into_cell(cell)
            for cell in table[in_table].tolist()
        ]
        for in_file, in_table in COLUMN_NAMES[name].items()
    }
    return pd.DataFrame(columns, dtype=object)


def write_sheets(topics: pd.DataFrame, lines: pd.DataFrame, path: Path) -> None:
    """Write both sheets, cell by cell, to an .xlsx. The same tables give the same bytes."""
    workbook = Workbook()
    workbook.remove(workbook.active)
    for name, table in ((TOPICS, topics), (LINES, lines)):
        sheet = workbook.create_sheet(name)
        sheet.append(list(table.columns))
        for row in table.itertuples(index=False):
            sheet.append(row)
        for cell in chain.from_iterable(sheet.iter_rows()):
            # A text that begins with "=" is no formula, and the text #N/A is no error.
            cell.data_type = "s" if cell.data_type in ("f", "e") else cell.data_type
        sheet.freeze_panes = "A2"
        for column, width in _WIDTHS.items():
            sheet.column_dimensions[column].width = width
    with file_aside(path, durable=False) as aside:
        workbook.save(aside)
        _remove_dates(aside)


def _remove_dates(workbook: Path) -> None:
    """Rewrite the archive with fixed dates; openpyxl stores the current time in two places."""
    with ZipFile(workbook) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    with ZipFile(workbook, "w") as archive:
        for name, content in parts:
            dateless = re.sub(rb"(?<=W3CDTF\">)[^<]*", b"1980-01-01T00:00:00Z", content)
            archive.writestr(ZipInfo(name, _ZIP_EPOCH), dateless, ZIP_DEFLATED)
