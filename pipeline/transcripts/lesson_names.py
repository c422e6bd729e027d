"""Give a transcript the names of its course and lesson, cleaned up as in a workbook."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from pipeline.data.cell_values import as_lesson, as_name
from pipeline.data.workbook_files import fit_into_cell
from pipeline.transcripts.transcript import Transcript


def rename_lesson(transcript: Transcript, course: str, lesson: str) -> Transcript:
    """Give a transcript another course and lesson. Empty names change nothing."""
    course, lesson = one_line(course) or transcript.course_title, one_line(lesson) or transcript.lesson_num
    return replace(
        transcript,
        course_title=as_name(pd.Series([course])).iloc[0],
        lesson_num=as_lesson(pd.Series([lesson])).iloc[0],
    )


def one_line(text: str) -> str:
    """Return a text as a cell of one line can hold it."""
    return " ".join(fit_into_cell(text).split())
