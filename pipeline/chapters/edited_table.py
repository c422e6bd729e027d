"""Chapters as a person edits them: a table of times and titles, each row of which is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.chapters.chaptering import divide, is_number
from pipeline.data.cell_values import MAX_SECONDS, Fault, as_lesson, as_name, as_seconds
from pipeline.data.workbook_files import fit_into_cell
from pipeline.errors import Rejected
from pipeline.transcripts.chapter import Chaptered
from pipeline.transcripts.timestamps import as_written
from pipeline.transcripts.transcript import Talk, Topic

_LONGEST_TITLE = 500
_WRONG = {Fault.TOO_LONG: f"is over {MAX_SECONDS / 3600:,.0f} hours", Fault.BELOW_ZERO: "is a time below zero"}


class Row(NamedTuple):
    """A chapter as it is written in the table."""

    time: str
    title: str


def as_rows(talk: Chaptered) -> list[Row]:
    """The table of a talk's chapters."""
    return [Row(as_written(chapter.start_seconds), chapter.title) for chapter in talk.chapters]


def named(talk: Talk, course: str, lesson: str) -> tuple[str, str]:
    """The lesson that a person calls `talk`, as a workbook would have it; by its own name where they say nothing."""
    said = (_one_line(course) or talk.course_title, _one_line(lesson) or talk.lesson_num)
    return as_name(pd.Series([said[0]])).iloc[0], as_lesson(pd.Series([said[1]])).iloc[0]


def from_rows(talk: Talk, rows: Sequence[Row]) -> Chaptered:
    """`talk` in the chapters that the table says. Rows without time and title do not count.

    Raises:
        Rejected: a row cannot be a chapter; the message names it, counted from 1 as the table shows it.
    """
    numbered = [
        (number, Row(row.time.strip(), _one_line(row.title)))
        for number, row in enumerate(rows, start=1)
        if row.time.strip() or row.title.strip()
    ]
    if not numbered:
        raise Rejected("The table has no chapters. Find some first, or write a row: 0:00 and a title.")
    seconds = _seconds(numbered)
    for (number, row), start in zip(numbered, seconds, strict=True):
        if not row.title:
            raise Rejected(f"Row {number} ({row.time}) has no title. Write one, or take the row away.")
        if len(row.title) > _LONGEST_TITLE:
            raise Rejected(f"The title of row {number} is longer than {_LONGEST_TITLE} characters. Shorten it.")
        if start >= talk.end_seconds:
            raise Rejected(f"Row {number}: {row.time} is after the end of the talk, {as_written(talk.end_seconds)}.")
    for before, after in zip(range(len(seconds) - 1), range(1, len(seconds)), strict=True):
        if seconds[after] <= seconds[before]:
            raise Rejected(
                f"Row {numbered[after][0]}: {numbered[after][1].time} is not after the time of row "
                f"{numbered[before][0]}, {numbered[before][1].time}. Put the rows in order, each with its own time."
            )
    if talk.begins < seconds[0]:
        raise Rejected(f"Row {numbered[0][0]}: words are said before {numbered[0][1].time}. Let it begin at 0:00.")
    parts = divide(talk, [Topic(start, row.title) for start, (_, row) in zip(seconds, numbered, strict=True)])
    return replace(parts, unnamed=_unnamed(parts))


def _unnamed(parts: Chaptered) -> tuple[int, ...]:
    """The numbers of the chapters that nobody has given a title."""
    given = {topic.title for topic in parts.talk.topics}
    titles = enumerate((chapter.title for chapter in parts.chapters), start=1)
    return tuple(number for number, title in titles if is_number(title) and title not in given)


def _seconds(rows: Sequence[tuple[int, Row]]) -> list[float]:
    times = as_seconds(pd.Series([row.time for _, row in rows], dtype="str"))
    wrong = np.flatnonzero(times.fault != Fault.NONE)
    if wrong.size:
        number, row = rows[wrong[0]]
        if not row.time:
            raise Rejected(f"Row {number} ({row.title[:60]}) has no time. Write h:mm:ss or mm:ss.")
        why = _WRONG.get(Fault(times.fault[wrong[0]]), "is not a time")
        raise Rejected(f"Row {number}: {row.time[:60]!r} {why}. Write h:mm:ss or mm:ss.")
    return times.seconds.tolist()


def _one_line(text: str) -> str:
    return " ".join(fit_into_cell(text).split())
