"""Which rows belong to the same lesson, and which line to which topic: the ordered as-of join."""

from __future__ import annotations

import numpy as np
import pandas as pd

LESSON = ["course_title", "lesson_num"]


def lesson_ids(*tables: pd.DataFrame) -> list[np.ndarray]:
    """For each table the number of each row's lesson, the same in all tables; sorted as course and lesson_num sort."""
    ids = np.zeros(sum(map(len, tables)), dtype=np.int64)
    for column in LESSON:
        codes, distinct = pd.factorize(pd.concat([table[column] for table in tables]), sort=True)
        ids = ids * len(distinct) + codes
    return np.split(pd.factorize(ids, sort=True)[0], np.cumsum([len(table) for table in tables])[:-1])


def last_start(
    topic_lesson: np.ndarray, topic_start: np.ndarray, line_lesson: np.ndarray, line_seconds: np.ndarray
) -> np.ndarray:
    """For each line the position of the last topic of its lesson that starts no later; -1 where there is none."""
    topics = len(topic_lesson)
    lesson = np.concatenate([topic_lesson, line_lesson])
    # The sort is stable, so a topic stands before the lines of its own second.
    order = np.lexsort((np.concatenate([topic_start, line_seconds]), lesson))
    is_line = order >= topics
    latest = order[np.maximum.accumulate(np.where(is_line, 0, np.arange(len(order))))]
    found = (latest < topics) & (lesson[latest] == lesson[order])
    topic_of_line = np.empty(len(line_lesson), dtype=np.int64)
    topic_of_line[order[is_line] - topics] = np.where(found, latest, -1)[is_line]
    return topic_of_line
