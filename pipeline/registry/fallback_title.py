"""The title that a user sees: the model's, or a keyphrase of the text if the model wrote no usable title.

Measuring, ranking and the gate see only the model's own titles. A keyphrase is marked as a fallback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.data.lesson_openings import remove_opening_mark
from pipeline.evaluation.keyphrases import best_phrase
from pipeline.models.title_cleanup import (
    TitleStyle,
    clean_up_title,
    has_spoken_words,
    is_usable_title,
    remove_sound_marks,
)

_READ = 120_000  # characters: about 20,000 words, which take 2 s; a million words would take 90 s


class Shown(NamedTuple):
    """One title as the user sees it."""

    title: str  # empty if the text has no keyphrase either
    fallback: bool  # the title is a keyphrase
    candidates: Sequence[str] = ()  # titles that the model wrote, best first


def choose_titles(texts: Sequence[str], candidates: Sequence[Sequence[str]], style: TitleStyle) -> list[Shown]:
    """Choose for each text its first usable candidate, or else its best keyphrase in the style of the course.

    A title of a text in which nothing is said, such as [Music], is invented, so it is not used.

    Args:
        candidates: the model's titles of each text, best first, after the usual title of an opening.
    """
    own = [
        next(filter(is_usable_title, titles), "") if has_spoken_words(remove_opening_mark(text)) else ""
        for text, titles in zip(texts, candidates, strict=True)
    ]
    without = [text for text, title in zip(texts, own, strict=True) if not title]
    fallbacks = iter(_keyphrases(without, style))
    return [
        Shown(title, False, titles) if title else Shown(next(fallbacks), True, titles)
        for title, titles in zip(own, candidates, strict=True)
    ]


def _keyphrases(texts: Sequence[str], style: TitleStyle) -> list[str]:
    texts = [remove_opening_mark(text) for text in texts]
    texts = [text if has_spoken_words(text) else "" for text in texts]
    phrases = [best_phrase(remove_sound_marks(text)[:_READ]) for text in texts]
    titles = [clean_up_title(phrase, style, text) for phrase, text in zip(phrases, texts, strict=True)]
    return [title if is_usable_title(title) else "" for title in titles]
