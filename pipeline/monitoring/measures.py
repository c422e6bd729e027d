"""Measure texts and titles, so that many can be compared without keeping their words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from itertools import pairwise

import pandas as pd
import py3langid

from pipeline.data.workbook_schema import LESSON
from pipeline.transcripts.transcript import Topic, Transcript

NUMBERS = ("words", "characters", "unknown_words", "title_words", "chapter_minutes")

_WORD = re.compile(r"\w+")
_LANGUAGE_CHARACTERS = 1000  # enough to detect the language of a text
_LANGUAGE_WORDS = 5  # fewer words are too few to detect it
_UNDETERMINED = "und"  # in ISO 639


def measure(texts: Sequence[str], titles: Sequence[str], known: Set[str] | None) -> pd.DataFrame:
    """Measure each text and its title.

    Args:
        titles: one per text.
        known: the vocabulary of the training split; None without a training split.

    Returns:
        One row per text. words, characters: their numbers in the text. unknown_words: share of the words that are not
        in `known`; NaN without vocabulary or words. language: ISO 639 code; `und` for a text that is too short.
        title_words: number of words in the title.
    """
    words = [_words(text) for text in texts]
    columns = {
        "words": [len(each) for each in words],
        "characters": [len(text) for text in texts],
        "unknown_words": [float("nan") if known is None else _share(each, known) for each in words],
        "language": [_language(text, each) for text, each in zip(texts, words, strict=True)],
        "title_words": [len(title.split()) for title in titles],
    }
    return pd.DataFrame(columns)


def measure_training(train: pd.DataFrame, talks: Sequence[Transcript] = ()) -> pd.DataFrame:
    """Measure the training split; the unknown words of a text are those that no other lesson has.

    Args:
        train: the columns course_title, lesson_num, start_seconds, title and text.
        talks: the lessons of the split, whose topics give the lengths of chapters.
    """
    topics = train[[*LESSON, "start_seconds"]].itertuples(index=False, name=None)
    minutes = dict(_topic_minutes(talks))
    measured = measure(train["text"].tolist(), train["title"].tolist(), None).assign(
        chapter_minutes=[minutes.get(topic, float("nan")) for topic in topics]
    )
    words = train["text"].map(_words)
    lessons = train.groupby(LESSON, sort=False).ngroup()
    by_lesson = words.groupby(lessons.to_numpy()).agg(lambda parts: set().union(*parts))
    if len(by_lesson) < 2:
        return measured
    times = Counter(word for found in by_lesson for word in found)
    shared = {word for word, count in times.items() if count > 1}
    return measured.assign(unknown_words=[_share(each, shared) for each in words])


def _topic_minutes(talks: Sequence[Transcript]) -> Iterator[tuple[tuple[str, str, float], float]]:
    """Yield the course, the number and the start of each topic, and its length in minutes."""
    for talk in talks:
        for topic, after in pairwise([*talk.topics, Topic(talk.end_seconds, "")]):
            yield (talk.course_title, talk.lesson_num, topic.seconds), (after.seconds - topic.seconds) / 60


def vocabulary(texts: Sequence[str]) -> set[str]:
    """Return the set of all words in `texts`."""
    return {word for text in texts for word in _words(text)}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _share(words: list[str], known: Set[str]) -> float:
    return sum(word not in known for word in words) / len(words) if words else float("nan")


def _language(text: str, words: list[str]) -> str:
    if len(words) < _LANGUAGE_WORDS:
        return _UNDETERMINED
    return py3langid.classify(text[:_LANGUAGE_CHARACTERS])[0]
