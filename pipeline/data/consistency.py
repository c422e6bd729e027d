"""Whether the lessons of a workbook make sense: how times follow each other, and how both sheets fit together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.data.cells import as_clock, blank
from pipeline.data.lessons import LESSON, last_start, lesson_ids
from pipeline.data.problems import Problem
from pipeline.data.sheets import Sheet

_LATE = 10 * 3600  # seconds; no lesson lasts that long, so a lesson that seems to may hold minutes as hours


def problems_of_lessons(topics: Sheet | None, lines: Sheet | None) -> list[Problem]:
    """What is wrong between the rows of a sheet, and between the sheets; a sheet is None where it cannot be judged."""
    sheets = [_located(sheet) for sheet in (topics, lines) if sheet is not None]
    lessons = lesson_ids(*(sheet.rows for sheet in sheets)) if sheets else []
    problems = []
    for sheet, ids in zip(sheets, lessons, strict=True):
        problems += _backwards(sheet, ids) + _hours_for_minutes(sheet, ids)
    if topics is not None:
        problems += _repeated(sheets[0], lessons[0])
    if topics is not None and lines is not None:
        problems += _one_sided(sheets[0], lessons[0], sheets[1], lessons[1])
        problems += _one_sided(sheets[1], lessons[1], sheets[0], lessons[0])
        problems += _unmatched(sheets[0], lessons[0], sheets[1], lessons[1])
    return problems


def _located(sheet: Sheet) -> Sheet:
    """Without the rows that do not say to which lesson they belong."""
    lost = (sheet.rows[LESSON] == "").any(axis=1)
    return replace(sheet, rows=sheet.rows[~lost].reset_index(drop=True)) if lost.any() else sheet


def _backwards(sheet: Sheet, lessons: np.ndarray) -> list[Problem]:
    seconds = sheet.seconds
    order = np.argsort(lessons, kind="stable")
    back = np.zeros(len(order), dtype=bool)
    back[order[1:]] = (np.diff(lessons[order]) == 0) & (np.diff(seconds[order]) < 0)
    remedy = "Correct it, or leave it: times are sorted."
    pattern = sheet.pattern("warning", "times running backwards", "timestamp", remedy)
    return sheet.at_lessons(
        pattern,
        lessons,
        back,
        lambda i, n: f"{as_clock(seconds[i])} is earlier than the row before it in {sheet.lesson(i)}{_in_all(n)}.",
    )


def _hours_for_minutes(sheet: Sheet, lessons: np.ndarray) -> list[Problem]:
    """Excel stores 5:30 as 5 h 30 min. A lesson of whole minutes that lasts for many hours was typed as mm:ss."""
    seconds = sheet.seconds
    rows = np.bincount(lessons)
    whole = np.bincount(lessons, weights=seconds % 60 == 0) == rows
    doubtful = (seconds >= _LATE) & (whole & (rows >= 3))[lessons]
    remedy = "If it was typed as mm:ss, write 0:mm:ss; else nothing to do."
    return sheet.at_rows(
        sheet.pattern("warning", "hours for minutes", "timestamp", remedy),
        _once_a_lesson(lessons, doubtful),
        lambda i: f"{as_clock(seconds[i])}, and every time of {sheet.lesson(i)} is a whole minute.",
    )


def _repeated(topics: Sheet, lessons: np.ndarray) -> list[Problem]:
    """Topics of one lesson that share their start or their title."""
    remedy = "Give each topic a time of its own, or delete one."
    pattern = topics.pattern("error", "duplicate topic start", "timestamp", remedy)
    first, again = _first_of(topics, lessons, topics.time)
    problems = topics.at_rows(
        pattern,
        again,
        lambda i: f"Row {first[i]:,} starts a topic of {topics.lesson(i)} at {as_clock(topics.seconds[i])} too.",
    )
    if "title" not in topics.rows:
        return problems
    pattern = topics.pattern("warning", "title used twice", "topic", "Nothing to do if that is meant.")
    same, repeated = _first_of(topics, lessons, "title")
    return problems + topics.at_rows(
        pattern,
        repeated & (topics.rows["title"] != "").to_numpy(),
        lambda i: f"Row {same[i]:,} of {topics.lesson(i)} has the same title.",
    )


def _first_of(sheet: Sheet, lessons: np.ndarray, column: str) -> tuple[np.ndarray, np.ndarray]:
    """For each row the first row of its lesson with the same value, and whether that is another row."""
    first = sheet.rows.groupby([lessons, sheet.rows[column]], dropna=False)["row"].transform("first")
    again = (first != sheet.rows["row"]) & sheet.rows[column].notna()
    return first.to_numpy(), again.to_numpy()


def _one_sided(here: Sheet, lessons: np.ndarray, there: Sheet, others: np.ndarray) -> list[Problem]:
    rows = np.bincount(lessons)
    remedy = f"Add it to {there.name}, or write its course and number the same way on both."
    return here.at_rows(
        here.pattern("warning", "lesson on one sheet only", "lesson_num", remedy),
        _once_a_lesson(lessons, ~np.isin(lessons, others)),
        lambda i: f"{there.name} has no {here.lesson(i)}{_in_all(rows[lessons[i]])}.",
    )


def _unmatched(topics: Sheet, topic_lessons: np.ndarray, lines: Sheet, line_lessons: np.ndarray) -> list[Problem]:
    """Lines before the first topic and topics without lines, in lessons of both sheets whose times could be read."""
    doubtful = [topic_lessons[np.isnan(topics.seconds)], line_lessons[np.isnan(lines.seconds)]]
    judged = np.setdiff1d(np.intersect1d(topic_lessons, line_lessons), np.concatenate(doubtful))
    topic_of_line = last_start(topic_lessons, topics.seconds, line_lessons, lines.seconds)

    remedy = "Start a topic there, or leave them: they will be set aside."
    problems = lines.at_lessons(
        lines.pattern("warning", "line before the first topic", "timestamp", remedy),
        line_lessons,
        (topic_of_line < 0) & np.isin(line_lessons, judged),
        lambda i, n: f"At {as_clock(lines.seconds[i])} no topic of {lines.lesson(i)} has begun{_in_all(n)}.",
    )
    spoken = topic_of_line >= 0
    if "text" in lines.rows:
        spoken &= ~blank(lines.rows["text"])
    silent = np.bincount(topic_of_line[spoken], minlength=len(topic_lessons)) == 0
    remedy = "Check its time and the next topic's, or leave it: it will be set aside."
    return problems + topics.at_rows(
        topics.pattern("warning", "topic without lines", "timestamp", remedy),
        silent & np.isin(topic_lessons, judged),
        lambda i: f"No line of {topics.lesson(i)} falls between {as_clock(topics.seconds[i])} and the next topic.",
    )


def _once_a_lesson(lessons: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`where` with only its first row of each lesson."""
    positions = np.flatnonzero(where)
    once = np.zeros(len(where), dtype=bool)
    once[positions[np.unique(lessons[positions], return_index=True)[1]]] = True
    return once


def _in_all(rows: int) -> str:
    return f" ({rows:,} rows in all)" if rows > 1 else ""
