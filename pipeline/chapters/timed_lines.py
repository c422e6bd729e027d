"""Divide timed lines of text into chapters, for a registered model that MLflow serves."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmenter import Segmenter
from pipeline.data.cell_values import Fault, as_seconds
from pipeline.transcripts.chapter import Chapter
from pipeline.transcripts.transcript import Line, Transcript, end_of_transcript


def chapters_of_lines(lines: Sequence[str], segmenter: Segmenter) -> list[Chapter]:
    """Divide a talk into chapters without titles.

    Args:
        lines: the lines of one talk in order, each a time and words, such as "1:02:30 okay so next".

    Raises:
        ValueError: a line does not start with a time, or has no words.
    """
    times, texts = zip(*(line.partition(" ")[::2] for line in lines), strict=True)
    seconds = as_seconds(pd.Series(times, dtype="str"))
    for number, text in enumerate(texts):
        if seconds.fault[number] != Fault.NONE or not text.strip():
            raise ValueError(f"row {number} is not a line of a talk; send a time and words, such as '1:02:30 okay so'")
    spoken = sorted(
        (Line(float(start), " ".join(text.split())) for start, text in zip(seconds.seconds, texts, strict=True)),
        key=lambda line: line.seconds,
    )
    talk = Transcript("", "", spoken, end_of_transcript(spoken))
    return divide_transcript(talk, segmenter.card.chapters_settings(), segmenter=segmenter).chapters
