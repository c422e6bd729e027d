"""Check the lessons of a workbook: the order of their times, and the match between both sheets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.data.cell_values import is_blank
from pipeline.data.examples import last_started_topic, lesson_ids
from pipeline.data.problems import Problem
from pipeline.data.sheet_parsing import ParsedSheet
from pipeline.data.single_values import as_clock
from pipeline.data.workbook_schema import LESSON

DUPLICATE_START = "also starts a topic"
"""Part of the message about the second topic with the same start."""

_LATE = 10 * 3600  # seconds; a longer lesson probably holds minutes as hours


def check_lessons(topics: ParsedSheet | None, lines: ParsedSheet | None) -> list[Problem]:
    """Find problems between the rows of a sheet and between both sheets.

    Args:
        topics: the topics; None if the sheet or one of its key columns is missing.
        lines: the lines; None in the same case.
    """
    sheets = [_rows_with_lesson(sheet) for sheet in (topics, lines) if sheet is not None]
    lessons = lesson_ids(*(sheet.rows for sheet in sheets)) if sheets else []
    problems = []
    for sheet, ids in zip(sheets, lessons, strict=True):
        problems += _decreasing_times(sheet, ids) + _minutes_as_hours(sheet, ids)
    if topics is not None:
        problems += _duplicate_topics(sheets[0], lessons[0])
    if topics is not None and lines is not None:
        problems += _missing_lessons(sheets[0], lessons[0], sheets[1], lessons[1])
        problems += _missing_lessons(sheets[1], lessons[1], sheets[0], lessons[0])
        problems += _unmatched_rows(sheets[0], lessons[0], sheets[1], lessons[1])
    return problems


def _rows_with_lesson(sheet: ParsedSheet) -> ParsedSheet:
    """Drop the rows without a course or a lesson number."""
    incomplete = (sheet.rows[LESSON] == "").any(axis=1)
    return replace(sheet, rows=sheet.rows[~incomplete].reset_index(drop=True)) if incomplete.any() else sheet


def _decreasing_times(sheet: ParsedSheet, lessons: np.ndarray) -> list[Problem]:
    """Find lessons in which a row has an earlier time than the row before."""
    seconds = sheet.seconds
    order = np.argsort(lessons, kind="stable")
    earlier = np.zeros(len(order), dtype=bool)
    earlier[order[1:]] = (np.diff(lessons[order]) == 0) & (np.diff(seconds[order]) < 0)
    remedy = "Correct it, or leave it: Lectern sorts by time."
    pattern = sheet.pattern("warning", "times out of order", "timestamp", remedy)
    return sheet.at_lessons(
        pattern,
        lessons,
        earlier,
        lambda i, n: f"{as_clock(seconds[i])} is earlier than the row before it in {sheet.lesson(i)}{_total(n)}.",
    )


def _minutes_as_hours(sheet: ParsedSheet, lessons: np.ndarray) -> list[Problem]:
    """Find lessons that were probably typed as mm:ss: Excel stores 5:30 as 5 h 30 min.

    Such a lesson lasts for many hours, and all its times are whole minutes.
    """
    seconds = sheet.seconds
    rows = np.bincount(lessons)
    whole = np.bincount(lessons, weights=seconds % 60 == 0) == rows
    doubtful = (seconds >= _LATE) & (whole & (rows >= 3))[lessons]
    remedy = "If it was typed as mm:ss, use 0:mm:ss. Otherwise nothing to do."
    return sheet.at_rows(
        sheet.pattern("warning", "minutes stored as hours", "timestamp", remedy),
        _first_per_lesson(lessons, doubtful),
        lambda i: f"{as_clock(seconds[i])} is late, and all times of {sheet.lesson(i)} are whole minutes.",
    )


def _duplicate_topics(topics: ParsedSheet, lessons: np.ndarray) -> list[Problem]:
    """Find topics of one lesson with the same start or the same title."""
    remedy = "Give each topic its own time, or delete one."
    pattern = topics.pattern("error", "duplicate topic start", "timestamp", remedy)
    first, again = _first_equal(topics, lessons, topics.time)
    problems = topics.at_rows(
        pattern,
        again,
        lambda i: f"Row {first[i]:,} {DUPLICATE_START} of {topics.lesson(i)} at {as_clock(topics.seconds[i])}.",
    )
    if "title" not in topics.rows:
        return problems
    pattern = topics.pattern("warning", "title used twice", "topic", "Nothing to do if that is intended.")
    same, repeated = _first_equal(topics, lessons, "title")
    return problems + topics.at_rows(
        pattern,
        repeated & (topics.rows["title"] != "").to_numpy(),
        lambda i: f"Row {same[i]:,} of {topics.lesson(i)} has the same title.",
    )


def _first_equal(sheet: ParsedSheet, lessons: np.ndarray, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the first row of its lesson with the same value, and whether that is another row."""
    first = sheet.rows.groupby([lessons, sheet.rows[column]], dropna=False)["row"].transform("first")
    again = (first != sheet.rows["row"]) & sheet.rows[column].notna()
    return first.to_numpy(), again.to_numpy()


def _missing_lessons(here: ParsedSheet, lessons: np.ndarray, there: ParsedSheet, others: np.ndarray) -> list[Problem]:
    """Find lessons of one sheet that the other sheet does not have."""
    rows = np.bincount(lessons)
    remedy = f"Add it to {there.name}, or use the same course title and lesson number on both sheets."
    return here.at_rows(
        here.pattern("warning", "lesson on one sheet only", "lesson_num", remedy),
        _first_per_lesson(lessons, ~np.isin(lessons, others)),
        lambda i: f"{there.name} has no {here.lesson(i)}{_total(rows[lessons[i]])}.",
    )


def _unmatched_rows(
    topics: ParsedSheet, topic_lessons: np.ndarray, lines: ParsedSheet, line_lessons: np.ndarray
) -> list[Problem]:
    """Find lines before the first topic and topics without lines, in lessons of both sheets with valid times."""
    doubtful = [topic_lessons[np.isnan(topics.seconds)], line_lessons[np.isnan(lines.seconds)]]
    judged = np.setdiff1d(np.intersect1d(topic_lessons, line_lessons), np.concatenate(doubtful))
    topic_of_line = last_started_topic(topic_lessons, topics.seconds, line_lessons, lines.seconds)

    remedy = "Add a topic there, or leave the lines: they will be set aside."
    problems = lines.at_lessons(
        lines.pattern("warning", "line before the first topic", "timestamp", remedy),
        line_lessons,
        (topic_of_line < 0) & np.isin(line_lessons, judged),
        lambda i, n: f"{as_clock(lines.seconds[i])} is before the first topic of {lines.lesson(i)}{_total(n)}.",
    )
    has_words = topic_of_line >= 0
    if "text" in lines.rows:
        has_words &= ~is_blank(lines.rows["text"])
    without_lines = np.bincount(topic_of_line[has_words], minlength=len(topic_lessons)) == 0
    remedy = "Check its time and the time of the next topic, or leave it: it will be set aside."
    return problems + topics.at_rows(
        topics.pattern("warning", "topic without lines", "timestamp", remedy),
        without_lines & np.isin(topic_lessons, judged),
        lambda i: f"No line of {topics.lesson(i)} falls between {as_clock(topics.seconds[i])} and the next topic.",
    )


def _first_per_lesson(lessons: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Keep only the first selected row of each lesson."""
    positions = np.flatnonzero(where)
    once = np.zeros(len(where), dtype=bool)
    once[positions[np.unique(lessons[positions], return_index=True)[1]]] = True
    return once


def _total(rows: int) -> str:
    """Return the number of rows in parentheses, if there are several."""
    return f" ({rows:,} rows in total)" if rows > 1 else ""
