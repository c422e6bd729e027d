"""Chapters as an editable table of times and titles, and the checks of what a person enters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.chapters.divide_transcript import divide_at
from pipeline.data.cell_values import as_seconds
from pipeline.data.single_values import Fault
from pipeline.errors import Rejected
from pipeline.registry.chapter_titles import is_numbered_title
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.lesson_names import one_line
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


def chapters_from_table(found: ChapteredTranscript, rows: Sequence[ChapterRow]) -> ChapteredTranscript:
    """Divide a transcript into the chapters of an edited table. Empty rows are skipped.

    Args:
        found: the chapters that the table first showed. Its rows are accepted unchanged, whatever is in them, and a
            title keeps its mark as a keyphrase until a person changes it.
        rows: the table now.

    Raises:
        Rejected: a row is not a chapter. The message gives its number in the table, counted from 1.
    """
    shown, transcript = table_rows(found), found.transcript
    if [*rows] == shown:
        return found
    numbered = [
        _NumberedRow(number, row.time.strip(), one_line(row.title))
        for number, row in enumerate(rows, start=1)
        if row.time.strip() or row.title.strip()
    ]
    if not numbered:
        raise Rejected("The table has no chapters. Click Find chapters, or write a row with 0:00 and a title.")
    unchanged = {(row.time, one_line(row.title)) for row in shown}
    exact = {row.time: chapter.start_seconds for row, chapter in zip(shown, found.chapters, strict=True)}
    seconds = [
        exact.get(row.time, start) for row, start in zip(numbered, _parse_times(numbered), strict=True)
    ]  # the table shows rounded times
    for row, start in zip(numbered, seconds, strict=True):
        if (row.time, row.title) not in unchanged:
            _check_row(row, start, transcript)
    _check_order(numbered, seconds)
    if transcript.first_line_seconds < seconds[0]:
        raise Rejected(
            f"Row {numbered[0].number}: the transcript starts before {numbered[0].time}. Start the first chapter at "
            "0:00."
        )
    topics = [Topic(start, row.title) for start, row in zip(seconds, numbered, strict=True)]
    lesson = divide_at(transcript, topics)
    return replace(lesson, unnamed=_unnamed(lesson), keyphrases=_keyphrases(lesson, found))


def _check_row(row: _NumberedRow, start: float, transcript: Transcript) -> None:
    if not row.title:
        raise Rejected(f"Row {row.number} ({row.time}) has no title. Write one, or delete the row.")
    if len(row.title) > _LONGEST_TITLE:
        raise Rejected(f"The title in row {row.number} is longer than {_LONGEST_TITLE} characters. Shorten it.")
    if start >= transcript.end_seconds and start not in (topic.seconds for topic in transcript.topics):
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


def _keyphrases(lesson: ChapteredTranscript, found: ChapteredTranscript) -> tuple[int, ...]:
    """Return the numbers of the chapters that still have a keyphrase of `found` as their title."""
    keyphrases = {found.chapters[number - 1].title for number in found.keyphrases}
    titles = enumerate((chapter.title for chapter in lesson.chapters), start=1)
    return tuple(number for number, title in titles if title in keyphrases)


def _parse_times(rows: Sequence[_NumberedRow]) -> list[float]:
    times = as_seconds(pd.Series([row.time for row in rows], dtype="str"))
    faulty = np.flatnonzero(times.fault != Fault.NONE)
    if faulty.size:
        row = rows[faulty[0]]
        if not row.time:
            raise Rejected(f"Row {row.number} ({row.title[:60]}) has no time. Write h:mm:ss or mm:ss.")
        raise Rejected(f"Row {row.number}: {time_fault(row.time, Fault(times.fault[faulty[0]]))}")
    return times.seconds.tolist()
