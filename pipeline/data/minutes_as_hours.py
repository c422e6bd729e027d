"""Recognise minutes that Excel stored as hours: who types 1:20 for 1 min 20 s gets 1 h 20 min, shown as 1:20.

Three facts give such a lesson away. Nobody speaks as slowly as its lines say, topics that start after the last line fit
between the lines if their hours are minutes, and after 59:30 for 59 hours comes 1:00:10.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.data.examples import last_started_topic, lesson_ids
from pipeline.data.problems import Problem
from pipeline.data.sheet_parsing import ParsedSheet
from pipeline.data.single_values import as_clock
from pipeline.data.word_count import count_words
from pipeline.data.workbook_schema import LESSON

_FACTOR = 60
_SPOKEN = (20, 300)  # words per minute of a transcript
_FEWEST_ROWS = 3
_FULL_HOUR = 3600.0
_LONGEST_STEP = 600.0  # seconds between a last time as mm:ss and the first one as h:mm:ss


def correct_minutes(topics: ParsedSheet, lines: ParsedSheet) -> tuple[ParsedSheet, ParsedSheet, list[Problem]]:
    """Read the hours of a lesson as minutes where only that gives a lesson that can be spoken.

    Returns:
        The topics, the lines, and a warning for each corrected lesson of a sheet.
    """
    of_topics, of_lines = lesson_ids(topics.rows, lines.rows)
    topics, turned = _correct(topics, _before_the_full_hour(topics, of_topics), of_topics)
    lines, also_turned = _correct(lines, _before_the_full_hour(lines, of_lines), of_lines)
    slow = np.isin(of_lines, _too_slow(lines, of_lines))
    lines, too_slow = _correct(lines, slow, of_lines)
    late = np.isin(of_topics, _after_the_lines(topics, of_topics, lines, of_lines))
    topics, too_late = _correct(topics, late, of_topics)
    return topics, lines, turned + also_turned + too_slow + too_late


def _correct(sheet: ParsedSheet, where: np.ndarray, lessons: np.ndarray) -> tuple[ParsedSheet, list[Problem]]:
    """Divide the times of selected rows by 60, and report each of their lessons."""
    if not where.any():
        return sheet, []
    seconds = np.where(where, sheet.seconds / _FACTOR, sheet.seconds)
    remedy = "If that is wrong, check the times. Otherwise nothing to do; 0:mm:ss avoids this warning."
    problems = sheet.at_lessons(
        sheet.pattern("warning", "hours read as minutes", "timestamp", remedy),
        lessons,
        where & (sheet.seconds > 0),
        lambda i, n: (
            f"The times of {sheet.lesson(i)} fit only as minutes and seconds, so {as_clock(sheet.seconds[i])} was read "
            f"as {as_clock(seconds[i])} ({n:,} rows in total)."
        ),
    )
    return replace(sheet, rows=sheet.rows.assign(**{sheet.time: seconds})), problems


def _before_the_full_hour(sheet: ParsedSheet, lessons: np.ndarray) -> np.ndarray:
    """Select rows with hours for minutes above rows with real hours: 59:30:00 for 59:30, and then 1:00:10."""
    selected = np.zeros(len(lessons), dtype=bool)
    late = sheet.seconds >= _FACTOR * (_FULL_HOUR - _LONGEST_STEP)
    in_question = np.flatnonzero(np.isin(lessons, lessons[late]))
    for _, positions in pd.Series(in_question).groupby(lessons[in_question]):
        rows = positions.to_numpy()
        seconds = sheet.seconds[rows]
        drop = int(np.argmax(np.diff(seconds, prepend=seconds[0]) < 0))
        above, below = seconds[:drop], seconds[drop:]
        if drop < _FEWEST_ROWS or not (above % 60 == 0).all() or (np.diff(seconds[:drop]) < 0).any():
            continue
        step = below[0] - above[-1] / _FACTOR
        if below.min() >= _FULL_HOUR and 0 < step <= _LONGEST_STEP:
            selected[rows[:drop]] = True
    return selected


def _candidates(sheet: ParsedSheet, lessons: np.ndarray) -> np.ndarray:
    """Return the lessons with several rows, whole minutes for all times, and a name."""
    unclear = lessons[(sheet.seconds % 60 != 0) | (sheet.rows[LESSON] == "").any(axis=1)]  # NaN is no whole minute
    found, rows = np.unique(lessons, return_counts=True)
    return np.setdiff1d(found[rows >= _FEWEST_ROWS], unclear)


def _too_slow(lines: ParsedSheet, lessons: np.ndarray) -> np.ndarray:
    """Return the lessons whose lines are spoken at a usual speed only if their hours are minutes."""
    found = _candidates(lines, lessons)
    if "text" not in lines.rows or not found.size:
        return found[:0]
    rows = lines.rows.assign(lesson=lessons)[np.isin(lessons, found)]
    words = rows["text"].map(count_words).groupby(rows["lesson"]).sum()
    times = rows.groupby("lesson")[lines.time].agg(["min", "max"])
    minutes = (times["max"] - times["min"]) / 60
    per_minute = (words / minutes.replace(0, np.nan)) * _FACTOR
    return per_minute.index[per_minute.between(*_SPOKEN)].to_numpy()


def _after_the_lines(
    topics: ParsedSheet, topic_lessons: np.ndarray, lines: ParsedSheet, line_lessons: np.ndarray
) -> np.ndarray:
    """Return the lessons whose topics start after the last line, but have lines if their hours are minutes."""
    found = np.intersect1d(_candidates(topics, topic_lessons), line_lessons[np.isfinite(lines.seconds)])
    last_line = pd.Series(lines.seconds).groupby(line_lessons).max()
    started = topics.seconds > 0
    early = started & (topics.seconds <= last_line.reindex(topic_lessons).to_numpy())
    as_minutes = last_started_topic(topic_lessons, topics.seconds / _FACTOR, line_lessons, lines.seconds)
    empty = np.bincount(as_minutes[as_minutes >= 0], minlength=len(topic_lessons)) == 0
    return np.setdiff1d(np.intersect1d(found, topic_lessons[started]), topic_lessons[early | (started & empty)])
