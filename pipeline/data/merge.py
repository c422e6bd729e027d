"""Every line under its topic: the ordered join that turns two tables into examples, and loses nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.cells import blank
from pipeline.data.lessons import LESSON, last_start, lesson_ids


@dataclass(frozen=True)
class Merged:
    """Lines in = lines in `examples` + lines in `set_aside`; topics in = rows of `examples` + topics in `set_aside`.

    examples: one row a topic that has lines, ordered by course, lesson and start.
        course_title, lesson_num, title: str
        start_seconds, end_seconds: float; the end is the next topic's start, NaN for the last topic: it is open-ended
        lines, line_seconds: arrays of str and float, in order of time, then of the workbook
        text: the lines joined by a space
        opens: whether its lesson begins with it, and goes on
    set_aside: what (line or topic), course_title, lesson_num, seconds, title, text, row, reason; in the workbook's
        order.
    """

    examples: pd.DataFrame
    set_aside: pd.DataFrame


def merge(topics: pd.DataFrame, lines: pd.DataFrame) -> Merged:
    """Puts each line under the last topic of its lesson that starts no later than it; n log n in the number of lines.

    Args:
        topics: course_title, lesson_num, start_seconds, title, row.
        lines: course_title, lesson_num, seconds, text, row. Their order in the table does not matter; `row` decides
            between lines at the same time.
    """
    topic_lesson, line_lesson = lesson_ids(topics, lines)
    topic_order = np.lexsort((topics["row"], topics["start_seconds"], topic_lesson))
    line_order = np.lexsort((lines["row"], lines["seconds"], line_lesson))
    topics, topic_lesson, line_lesson = topics.take(topic_order), topic_lesson[topic_order], line_lesson[line_order]

    seconds = lines["seconds"].to_numpy()[line_order]
    topic_of_line = last_start(topic_lesson, topics["start_seconds"], line_lesson, seconds)
    wordless = blank(lines["text"])[line_order]
    kept = (topic_of_line >= 0) & ~wordless
    spoken = np.bincount(topic_of_line[kept], minlength=len(topics))

    reasons = np.where(np.isin(line_lesson, topic_lesson), "before the first topic", "no topics for this lesson")
    reasons = np.where(wordless, "no words", reasons)[~kept]
    silent = topics[spoken == 0].rename(columns={"start_seconds": "seconds"})
    aside = [
        lines.take(line_order[~kept]).assign(what="line", title="", reason=reasons),
        silent.assign(what="topic", text="", reason="no lines"),
    ]
    set_aside = pd.concat(aside, ignore_index=True)[["what", *LESSON, "seconds", "title", "text", "row", "reason"]]

    topics = topics.assign(end_seconds=_next_start(topic_lesson, topics["start_seconds"].to_numpy()))
    texts = lines["text"].take(line_order[kept])
    return Merged(
        _examples(topics[spoken > 0], texts, seconds[kept], spoken[spoken > 0]),
        set_aside.sort_values(["what", "row"], kind="stable", ignore_index=True),
    )


def _next_start(lesson: np.ndarray, start: np.ndarray) -> np.ndarray:
    end = np.append(start[1:], np.nan)
    end[np.append(lesson[1:] != lesson[:-1], True)[: len(lesson)]] = np.nan
    return end[: len(lesson)]


def _examples(topics: pd.DataFrame, texts: pd.Series, seconds: np.ndarray, counts: np.ndarray) -> pd.DataFrame:
    """`texts` and `seconds` of lines in the order of `topics`, of which the n-th has `counts[n]`."""
    offsets = pa.array(np.append(0, np.cumsum(counts)), type=pa.int32())
    line_texts = pa.array(texts, type=pa.large_string())
    if isinstance(line_texts, pa.ChunkedArray):
        line_texts = line_texts.combine_chunks()
    lines = pa.ListArray.from_arrays(offsets, line_texts)
    joined = pc.binary_join(lines, pa.scalar(" ", pa.large_string()))
    return (
        topics[[*LESSON, "start_seconds", "end_seconds", "title"]]
        .reset_index(drop=True)
        .assign(
            lines=lines.to_pandas(),
            line_seconds=pa.ListArray.from_arrays(offsets, pa.array(seconds)).to_pandas(),
            text=pd.array(joined, dtype="str"),
            opens=lambda examples: ~examples.duplicated(LESSON) & examples.duplicated(LESSON, keep=False),
        )
    )
