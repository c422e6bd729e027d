"""Read the lessons of the workbook whose topics are known, to learn from them or to measure on them."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from pipeline.data.workbook_schema import LESSON
from pipeline.paths import LINES, TOPICS
from pipeline.transcripts.lessons import lessons_from_tables
from pipeline.transcripts.transcript import Transcript

LessonName = tuple[str, str]
"""The course and the number of a lesson."""


def lesson_names(examples: pd.DataFrame) -> set[LessonName]:
    """Return the name of each lesson that has an example."""
    return {(course, number) for course, number in examples[LESSON].itertuples(index=False)}


def known_lessons(among: Collection[LessonName]) -> list[Transcript]:
    """Read the lessons of the workbook that are `among` these and have lines and at least two topics."""
    return [
        talk
        for talk in lessons_from_tables(pd.read_parquet(TOPICS), pd.read_parquet(LINES))
        if talk.lines and len(talk.topics) > 1 and (talk.course_title, talk.lesson_num) in among
    ]
