"""Chapters as an editable table of times and titles, and the checks of what a person enters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.chapters.divide_transcript import divide_at
from pipeline.data.cell_values import Fault, as_lesson, as_name, as_seconds
from pipeline.data.workbook_files import fit_into_cell
from pipeline.errors import Rejected
from pipeline.titles.title_chapters import is_numbered_title
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.timestamps import short_time, time_fault
from pipeline.transcripts.transcript import Topic, Transcript

_LONGEST_TITLE = 500


class ChapterRow(NamedTuple):
    """A chapter as the table shows it."""

    time: str
    title: str


class _NumberedRow(NamedTuple):
    """A row with its number in the table, counted from 1."""

    number: int
    time: str
    title: str


def table_rows(lesson: ChapteredTranscript) -> list[ChapterRow]:
    """Return the rows of the table for these chapters."""
    return [ChapterRow(short_time(chapter.start_seconds), chapter.title) for chapter in lesson.chapters]


def rename_lesson(transcript: Transcript, course: str, lesson: str) -> Transcript:
    """Give a transcript the entered course and lesson, cleaned up as in a workbook. Empty entries change nothing."""
    course, lesson = _one_line(course) or transcript.course_title, _one_line(lesson) or transcript.lesson_num
    return replace(
        transcript,
        course_title=as_name(pd.Series([course])).iloc[0],
        lesson_num=as_lesson(pd.Series([lesson])).iloc[0],
    )


def chapters_from_table(transcript: Transcript, rows: Sequence[ChapterRow]) -> ChapteredTranscript:
    """Divide a transcript into the chapters of an edited table. Empty rows are skipped.

    Raises:
        Rejected: a row is not a chapter. The message gives its number in the table, counted from 1.
    """
    numbered = [
        _NumberedRow(number, row.time.strip(), _one_line(row.title))
        for number, row in enumerate(rows, start=1)
        if row.time.strip() or row.title.strip()
    ]
    if not numbered:
        raise Rejected("The table has no chapters. Click Find chapters, or write a row with 0:00 and a title.")
    seconds = _parse_times(numbered)
    for row, start in zip(numbered, seconds, strict=True):
        _check_row(row, start, transcript)
    _check_order(numbered, seconds)
    if transcript.first_line_seconds < seconds[0]:
        raise Rejected(
            f"Row {numbered[0].number}: the transcript starts before {numbered[0].time}. Start the first chapter at "
            "0:00."
        )
    topics = [Topic(start, row.title) for start, row in zip(seconds, numbered, strict=True)]
    lesson = divide_at(transcript, topics)
    return replace(lesson, unnamed=_unnamed(lesson))


def _check_row(row: _NumberedRow, start: float, transcript: Transcript) -> None:
    if not row.title:
        raise Rejected(f"Row {row.number} ({row.time}) has no title. Write one, or delete the row.")
    if len(row.title) > _LONGEST_TITLE:
        raise Rejected(f"The title in row {row.number} is longer than {_LONGEST_TITLE} characters. Shorten it.")
    if start >= transcript.end_seconds:
        end = short_time(transcript.end_seconds)
        raise Rejected(
            f"Row {row.number}: {row.time} is after the end of the transcript, {end}. Enter an earlier time."
        )


def _check_order(rows: Sequence[_NumberedRow], seconds: Sequence[float]) -> None:
    for (before, start), (after, next_start) in pairwise(zip(rows, seconds, strict=True)):
        if next_start <= start:
            raise Rejected(
                f"Row {after.number}: {after.time} is not after the time of row {before.number}, {before.time}. Put "
                "the rows in order of time, each with a different time."
            )


def _unnamed(lesson: ChapteredTranscript) -> tuple[int, ...]:
    """Return the numbers of the chapters that still have a number as their title, unless a known topic has it."""
    known = {topic.title for topic in lesson.transcript.topics}
    titles = enumerate((chapter.title for chapter in lesson.chapters), start=1)
    return tuple(number for number, title in titles if is_numbered_title(title) and title not in known)


def _parse_times(rows: Sequence[_NumberedRow]) -> list[float]:
    times = as_seconds(pd.Series([row.time for row in rows], dtype="str"))
    faulty = np.flatnonzero(times.fault != Fault.NONE)
    if faulty.size:
        row = rows[faulty[0]]
        if not row.time:
            raise Rejected(f"Row {row.number} ({row.title[:60]}) has no time. Write h:mm:ss or mm:ss.")
        raise Rejected(f"Row {row.number}: {time_fault(row.time, Fault(times.fault[faulty[0]]))}")
    return times.seconds.tolist()


def _one_line(text: str) -> str:
    return " ".join(fit_into_cell(text).split())
