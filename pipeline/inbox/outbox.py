"""Read and write the records of a titled folder: titles.csv, and not_titled.json with the rejected files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pipeline.data.single_values import escape_formula
from pipeline.errors import Rejected
from pipeline.files import file_aside, write_json

TITLES_CSV = "titles.csv"
NOT_TITLED = "not_titled.json"
"""The files that the last run rejected, and why. A corrected file is no longer in it."""

_ADDED_COLUMNS = {"fallback"}  # a titles.csv of an earlier release lacks them


@dataclass(frozen=True)
class TitledFile:
    """A row of titles.csv: a file of the inbox that was titled.

    title: the title of a text file; empty for a workbook.
    workbook: name of the titled copy in the outbox; empty for a text file.
    when: UTC.
    fallback: `keyphrase` if the title of a text file is a keyphrase. A workbook has a column of its own for that.
    added: the cells of columns that a person added, by column.
    """

    file: str
    sha256: str
    title: str
    workbook: str
    version: str
    when: str
    fallback: str = ""
    added: Mapping[str, str] = field(default_factory=dict, compare=False)


_COLUMNS = [each.name for each in fields(TitledFile) if each.name != "added"]


@dataclass(frozen=True)
class RejectedFile:
    """An entry of not_titled.json: a file of the inbox that was rejected, and why."""

    file: str
    sha256: str
    why: str


def read_titled(outbox: Path) -> list[TitledFile]:
    """Read titles.csv, oldest row first. Without the file, the list is empty.

    Raises:
        Rejected: the file lacks columns.
    """
    table = outbox / TITLES_CSV
    if not table.is_file():
        return []
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = _COLUMNS
        if reader.fieldnames is None or not {*columns} - _ADDED_COLUMNS <= {*reader.fieldnames}:
            raise Rejected(
                f"{table} lacks some of the columns {', '.join(columns)}. Move it elsewhere; a new one is written."
            )
        added = [name for name in reader.fieldnames if name not in columns]
        return [
            TitledFile(
                **{name: (row.get(name) or "").removeprefix("'") for name in columns},
                added={name: (row.get(name) or "").removeprefix("'") for name in added},
            )
            for row in reader
        ]


def write_titled(outbox: Path, rows: list[TitledFile]) -> None:
    """Write titles.csv, with the columns that a person added. A spreadsheet program reads every cell as text."""
    added = dict.fromkeys(name for row in rows for name in row.added)
    with file_aside(outbox / TITLES_CSV) as aside, aside.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, [*_COLUMNS, *added])
        writer.writeheader()
        for row in rows:
            cells = {name: getattr(row, name) for name in _COLUMNS} | {**row.added}
            writer.writerow({name: escape_formula(cell) for name, cell in cells.items()})


def read_rejected(outbox: Path) -> list[RejectedFile]:
    """Read the files that the last run rejected. Without a readable record the list is empty, so all are reported."""
    try:
        return [RejectedFile(**each) for each in json.loads((outbox / NOT_TITLED).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def write_rejected(outbox: Path, rejected: list[RejectedFile]) -> None:
    """Write not_titled.json, or remove it if no file was rejected."""
    if rejected:
        write_json(outbox / NOT_TITLED, [asdict(each) for each in rejected])
    else:
        (outbox / NOT_TITLED).unlink(missing_ok=True)
