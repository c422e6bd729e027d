"""Read the lessons of a workbook's tables as transcripts."""

from __future__ import annotations

import pandas as pd

from pipeline.data.workbook_schema import LESSON, SPEAKER
from pipeline.transcripts.transcript import Line, Topic, Transcript, end_of_transcript


def lessons_from_tables(topics: pd.DataFrame, lines: pd.DataFrame) -> list[Transcript]:
    """Return a transcript for each lesson, in the order of its lines. Lessons that have only topics come last.

    Args:
        topics: course_title, lesson_num, start_seconds and title.
        lines: course_title, lesson_num, seconds, text and row; optionally speaker.
    """
    known = {lesson: _topics(rows) for lesson, rows in topics.groupby(LESSON, sort=False)}
    transcripts = []
    for (course, number), rows in lines.groupby(LESSON, sort=False):
        ordered = rows.sort_values(["seconds", "row"]).reindex(columns=["seconds", "text", SPEAKER], fill_value="")
        ordered["text"] = ordered["text"].str.split().str.join(" ")
        spoken = [Line(*line) for line in ordered.itertuples(index=False) if line[1]]
        if spoken:
            of_lesson = known.pop((course, number), [])
            transcripts.append(Transcript(course, number, spoken, end_of_transcript(spoken), of_lesson))
    return transcripts + [
        Transcript(course, number, [], rows[-1].seconds + 1, rows) for (course, number), rows in known.items()
    ]


def _topics(rows: pd.DataFrame) -> list[Topic]:
    ordered = rows.sort_values("start_seconds")
    return [Topic(*topic) for topic in zip(ordered["start_seconds"].tolist(), ordered["title"].tolist(), strict=True)]
