"""Transcripts as tables: Whisper's TSV, and CSV with a start and a text column."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import NamedTuple

from pipeline.data.single_values import replace_control_characters
from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import WrittenTime, parse_times, split_lines
from pipeline.transcripts.transcript import RawLine

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


def read_table(text: str, name: str) -> list[RawLine]:
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
    times, lines = [], []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            at = reader.line_num + skipped
            if len(row) <= max(columns.start, columns.text):
                raise Rejected(f"{name}, line {at:,}: the row has {len(row)} of {len(header)} columns. Complete it.")
            times.append(WrittenTime(at, row[columns.start]))
            lines.append(row)
    except csv.Error as error:
        raise Rejected(f"{name}, line {reader.line_num + skipped:,}: not a row of a table ({error}).") from None
    starts = _times(times, name, header)
    ends = _ends(times, lines, columns, name, header)
    return [
        RawLine(start, end, replace_control_characters(row[columns.text]), _cell(row, columns.speaker))
        for start, end, row in zip(starts, ends, lines, strict=True)
    ]


def _head(text: str) -> tuple[list[str], str, int]:
    """Return the rows from the header on, their delimiter, and the number of lines above the header."""
    rows = split_lines(text.lstrip("\ufeff"))
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


def _times(times: Sequence[WrittenTime], name: str, header: Sequence[str]) -> list[float]:
    if _has_milliseconds(times, header):
        return [int(time.text) / 1000 for time in times]
    return parse_times([WrittenTime(time.line_number, time.text.strip()) for time in times], name)


def _has_milliseconds(times: Sequence[WrittenTime], header: Sequence[str]) -> bool:
    """Return whether this is Whisper's TSV: its three columns, and whole numbers for times."""
    return list(header) == ["start", "end", "text"] and all(time.text.isdecimal() for time in times)


def _ends(
    times: Sequence[WrittenTime], lines: Sequence[Sequence[str]], columns: _Columns, name: str, header: Sequence[str]
) -> list[float] | list[None]:
    if columns.end is None or any(not _cell(row, columns.end) for row in lines):
        return [None] * len(lines)
    return _times(
        [WrittenTime(time.line_number, _cell(row, columns.end)) for time, row in zip(times, lines, strict=True)],
        name,
        header,
    )


def _cell(row: Sequence[str], column: int | None) -> str:
    return row[column].strip() if column is not None and column < len(row) else ""
