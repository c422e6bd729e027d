"""Set the rows of a workbook that have errors aside, so that a model can be trained on the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.data.examples import SET_ASIDE_COLUMNS, last_started_topic, lesson_ids
from pipeline.data.lesson_checks import DUPLICATE_START
from pipeline.data.problems import Problem
from pipeline.data.sheet_parsing import ParsedSheet
from pipeline.data.workbook_schema import COLUMN_NAMES, LESSON, LINES, TOPICS


def is_of_broken_row(problem: Problem, sheets: Iterable[ParsedSheet]) -> bool:
    """Return whether a problem is an error of a row, not of a whole sheet."""
    return problem.severity == "error" and any(
        problem.sheet == sheet.name and problem.row in sheet.broken for sheet in sheets
    )


def as_set_aside(problem: Problem) -> Problem:
    """Turn the error of a row that is set aside into a warning."""
    if problem.severity == "warning":
        return problem
    return replace(
        problem, severity="warning", kind=f"set aside: {problem.kind}", remedy=f"Set aside. {problem.remedy}"
    )


def no_rows_aside() -> pd.DataFrame:
    """Return a table of rows set aside that has no rows."""
    text = dict.fromkeys(SET_ASIDE_COLUMNS, "str")
    return pd.DataFrame(columns=SET_ASIDE_COLUMNS).astype(text | {"seconds": "float64", "row": "int64"})


def set_broken_rows_aside(topics: ParsedSheet, lines: ParsedSheet) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Divide both sheets into rows to use and rows set aside with reasons.

    A line whose topic is set aside goes with it: it would otherwise count to the topic before. Without a time it is
    unknown where such a topic starts, so the topic above it is set aside too.

    Returns:
        The topics and the lines to use, and the rows set aside in the columns of `BuiltExamples.set_aside`.
    """
    topic_reasons, line_reasons = _reasons(topics), _reasons(lines)
    wrong = topic_reasons != ""
    # The other topic with the same start takes the lines of a duplicate.
    doubtful = wrong & ~topics.rows["row"].isin(_only_duplicates(topics)).to_numpy()
    named = topics.rows.assign(**topics.rows[LESSON].replace("", np.nan).ffill().fillna(""))
    topic_lesson, line_lesson = lesson_ids(named, lines.rows)
    for position in np.flatnonzero(doubtful & np.isnan(topics.seconds)):
        above = np.flatnonzero((topic_lesson == topic_lesson[position]) & ~wrong)
        above = above[above < position]
        if above.size and not doubtful[above[-1]]:
            doubtful[above[-1]] = True
            topic_reasons[above[-1]] = (
                f"the topic in row {topics.rows['row'].iloc[position]:,} has no time, so the end is unknown"
            )
    is_start = np.isfinite(topics.seconds) & (doubtful | ~wrong)
    starts = np.flatnonzero(is_start)
    topic_of_line = last_started_topic(topic_lesson[starts], topics.seconds[starts], line_lesson, lines.seconds)
    in_doubt = (topic_of_line >= 0) & np.isin(topic_of_line, np.flatnonzero(doubtful[starts]))
    line_reasons[in_doubt & (line_reasons == "")] = "its topic is set aside"
    aside = pd.concat(
        [_aside(topics, TOPICS, "topic", topic_reasons), _aside(lines, LINES, "line", line_reasons)], ignore_index=True
    )
    return _kept(topics, TOPICS, topic_reasons), _kept(lines, LINES, line_reasons), aside


def _reasons(sheet: ParsedSheet) -> np.ndarray:
    """Return what is wrong with each row; "" for a row to use."""
    return np.array([" ".join(sheet.broken.get(row, ())) for row in sheet.rows["row"].tolist()], dtype=object)


def _only_duplicates(topics: ParsedSheet) -> list[int]:
    return [row for row, reasons in topics.broken.items() if all(DUPLICATE_START in reason for reason in reasons)]


def _kept(sheet: ParsedSheet, name: str, reasons: np.ndarray) -> pd.DataFrame:
    columns = [*COLUMN_NAMES[name].values(), "row"]
    return sheet.rows.loc[reasons == "", columns].reset_index(drop=True)


def _aside(sheet: ParsedSheet, name: str, what: str, reasons: np.ndarray) -> pd.DataFrame:
    rows = sheet.rows[reasons != ""].rename(columns={sheet.time: "seconds"})
    rows = rows.assign(what=what, reason=reasons[reasons != ""])
    return rows.assign(**{column: "" for column in ("title", "text") if column not in rows})[SET_ASIDE_COLUMNS]
