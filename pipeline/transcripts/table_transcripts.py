"""Transcripts as tables: Whisper's TSV, and CSV with a start and a text column."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import NamedTuple

from pipeline.data.cells import without_controls
from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import Stamp, rows_of, seconds_of
from pipeline.transcripts.transcript import Spoken

START = ("start", "start time", "start_time", "starttime", "from", "time", "timestamp", "begin")
END = ("end", "end time", "end_time", "endtime", "to")
TEXT = ("text", "transcript", "caption", "subtitle", "line", "words", "utterance")
SPEAKER = ("speaker", "name", "actor", "speaker name", "speaker_label")
"""Column names that are understood, in lower case. Each table needs one of START and one of TEXT."""

_DELIMITERS = "\t,;|"
_SEPARATOR_LINE = "sep="  # Excel's hint, above the header


class _Columns(NamedTuple):
    start: int
    text: int
    end: int | None
    speaker: int | None


def is_table(text: str) -> bool:
    """Return whether the first row names a start and a text column."""
    rows, delimiter, _ = _head(text)
    return bool(rows) and _columns(rows[0].split(delimiter)) is not None


def read_table(text: str, name: str) -> list[Spoken]:
    """Read a line of a transcript from each row of a table.

    Times are h:mm:ss, mm:ss or seconds. Whisper's TSV has milliseconds, which are recognised by its columns.

    Args:
        text: the content of the file, for which `is_table` holds.
        name: the file's name, for messages.

    Raises:
        Rejected: a row lacks a column, or a time cannot be read.
    """
    rows, delimiter, skipped = _head(text)
    reader = csv.reader(StringIO("\n".join(rows)), delimiter=delimiter)
    header = next(reader)
    columns = _columns(header)
    assert columns is not None
    stamps, lines = [], []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            at = reader.line_num + skipped
            if len(row) <= max(columns.start, columns.text):
                raise Rejected(f"{name}, line {at:,}: the row has {len(row)} of {len(header)} columns. Complete it.")
            stamps.append(Stamp(at, row[columns.start]))
            lines.append(row)
    except csv.Error as error:
        raise Rejected(f"{name}, line {reader.line_num + skipped:,}: not a row of a table ({error}).") from None
    starts = _times(stamps, name, header)
    ends = _ends(stamps, lines, columns, name, header)
    return [
        Spoken(start, end, without_controls(row[columns.text]), _cell(row, columns.speaker))
        for start, end, row in zip(starts, ends, lines, strict=True)
    ]


def _head(text: str) -> tuple[list[str], str, int]:
    """Return the rows from the header on, their delimiter, and the number of lines above the header."""
    rows = rows_of(text.lstrip("\ufeff"))
    skipped = 0
    while skipped < len(rows) and (not rows[skipped].strip() or rows[skipped].lower().startswith(_SEPARATOR_LINE)):
        skipped += 1
    rows = rows[skipped:]
    delimiter = max(_DELIMITERS, key=rows[0].count) if rows else ","
    return rows, delimiter, skipped


def _columns(header: Sequence[str]) -> _Columns | None:
    names = [cell.strip().strip('"').strip().lower() for cell in header]

    def find(wanted: Sequence[str]) -> int | None:
        return next((names.index(name) for name in wanted if name in names), None)

    start, text = find(START), find(TEXT)
    if start is None or text is None:
        return None
    return _Columns(start, text, find(END), find(SPEAKER))


def _times(stamps: Sequence[Stamp], name: str, header: Sequence[str]) -> list[float]:
    if _has_milliseconds(stamps, header):
        return [int(stamp.written) / 1000 for stamp in stamps]
    return seconds_of([Stamp(stamp.at, stamp.written.strip()) for stamp in stamps], name)


def _has_milliseconds(stamps: Sequence[Stamp], header: Sequence[str]) -> bool:
    """Return whether this is Whisper's TSV: its three columns, and whole numbers for times."""
    return list(header) == ["start", "end", "text"] and all(stamp.written.isdecimal() for stamp in stamps)


def _ends(
    stamps: Sequence[Stamp], lines: Sequence[Sequence[str]], columns: _Columns, name: str, header: Sequence[str]
) -> list[float] | list[None]:
    if columns.end is None or any(not _cell(row, columns.end) for row in lines):
        return [None] * len(lines)
    return _times(
        [Stamp(stamp.at, _cell(row, columns.end)) for stamp, row in zip(stamps, lines, strict=True)], name, header
    )


def _cell(row: Sequence[str], column: int | None) -> str:
    return row[column].strip() if column is not None and column < len(row) else ""
