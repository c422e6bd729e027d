"""Build examples: assign each line to its topic by an as-of join of two tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.cell_values import is_blank
from pipeline.data.workbook_schema import LESSON

SET_ASIDE_COLUMNS = ["what", *LESSON, "seconds", "title", "text", "row", "reason"]


@dataclass(frozen=True)
class BuiltExamples:
    """Examples and the lines and topics that belong to none.

    No line and no topic is lost: each is in `examples` or in `set_aside`.

    Attributes:
        examples: one row per topic that has lines, ordered by course, lesson and start.
            course_title, lesson_num, title: str
            start_seconds, end_seconds: float; the end is the start of the next topic, NaN for the last topic
            lines, line_seconds: arrays of str and float, ordered by time, then by row of the workbook
            text: the lines joined by a space
            opens: whether it is the first of several examples of its lesson
        set_aside: one row per line or topic, in the order of the workbook.
            what (line or topic), course_title, lesson_num, seconds, title, text, row, reason
    """

    examples: pd.DataFrame
    set_aside: pd.DataFrame


def build_examples(topics: pd.DataFrame, lines: pd.DataFrame) -> BuiltExamples:
    """Assign each line to the last topic of its lesson that starts no later than the line, in n log n time.

    Args:
        topics: course_title, lesson_num, start_seconds, title, row.
        lines: course_title, lesson_num, seconds, text, row; in any order. `row` orders lines with the same time.
    """
    topic_lesson, line_lesson = lesson_ids(topics, lines)
    topic_order = np.lexsort((topics["row"], topics["start_seconds"], topic_lesson))
    line_order = np.lexsort((lines["row"], lines["seconds"], line_lesson))
    topics, topic_lesson, line_lesson = topics.take(topic_order), topic_lesson[topic_order], line_lesson[line_order]

    seconds = lines["seconds"].to_numpy()[line_order]
    topic_of_line = last_started_topic(topic_lesson, topics["start_seconds"].to_numpy(), line_lesson, seconds)
    wordless = is_blank(lines["text"])[line_order]
    kept = (topic_of_line >= 0) & ~wordless
    line_counts = np.bincount(topic_of_line[kept], minlength=len(topics))

    reasons = np.where(np.isin(line_lesson, topic_lesson), "before the first topic", "no topics for this lesson")
    reasons = np.where(wordless, "no words", reasons)[~kept]
    topics_without_lines = topics[line_counts == 0].rename(columns={"start_seconds": "seconds"})
    aside = [
        lines.take(line_order[~kept]).assign(what="line", title="", reason=reasons),
        topics_without_lines.assign(what="topic", text="", reason="no lines"),
    ]
    set_aside = pd.concat(aside, ignore_index=True)[SET_ASIDE_COLUMNS]

    topics = topics.assign(end_seconds=_next_start(topic_lesson, topics["start_seconds"].to_numpy()))
    texts = lines["text"].take(line_order[kept])
    return BuiltExamples(
        _examples(topics[line_counts > 0], texts, seconds[kept], line_counts[line_counts > 0]),
        set_aside.sort_values(["what", "row"], kind="stable", ignore_index=True),
    )


def lesson_ids(*tables: pd.DataFrame) -> list[np.ndarray]:
    """Number the lessons of several tables consistently; return the numbers of each table's rows.

    The numbers follow the order of course_title and lesson_num.
    """
    ids = np.zeros(sum(map(len, tables)), dtype=np.int64)
    for column in LESSON:
        codes, distinct = pd.factorize(pd.concat([table[column] for table in tables]), sort=True)
        ids = ids * len(distinct) + codes
    return np.split(pd.factorize(ids, sort=True)[0], np.cumsum([len(table) for table in tables])[:-1])


def last_started_topic(
    topic_lesson: np.ndarray, topic_start: np.ndarray, line_lesson: np.ndarray, line_seconds: np.ndarray
) -> np.ndarray:
    """Return for each line the position of the last topic of its lesson that starts no later, or -1."""
    topics = len(topic_lesson)
    lesson = np.concatenate([topic_lesson, line_lesson])
    # The sort is stable, so a topic comes before lines of the same second.
    order = np.lexsort((np.concatenate([topic_start, line_seconds]), lesson))
    is_line = order >= topics
    latest = order[np.maximum.accumulate(np.where(is_line, 0, np.arange(len(order))))]
    found = (latest < topics) & (lesson[latest] == lesson[order])
    topic_of_line = np.empty(len(line_lesson), dtype=np.int64)
    topic_of_line[order[is_line] - topics] = np.where(found, latest, -1)[is_line]
    return topic_of_line


def _next_start(lesson: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the start of the next topic of the same lesson, NaN for the last; topics are sorted."""
    end = np.append(start[1:], np.nan)
    end[np.append(lesson[1:] != lesson[:-1], True)[: len(lesson)]] = np.nan
    return end[: len(lesson)]


def _examples(topics: pd.DataFrame, texts: pd.Series, seconds: np.ndarray, counts: np.ndarray) -> pd.DataFrame:
    """Group lines by topic.

    Args:
        topics: the topics that have lines, sorted.
        texts: the lines' texts, in the order of the topics.
        seconds: the lines' times, in the same order.
        counts: the number of lines of each topic.
    """
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
