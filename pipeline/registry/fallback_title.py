"""The title that a user sees: the model's, or a keyphrase of the text if the model wrote no usable title.

Measuring, ranking and the gate see only the model's own titles. A keyphrase is marked as a fallback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from pipeline.data.lesson_openings import remove_opening_mark
from pipeline.evaluation.baselines import best_keyphrase
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
    candidates: Sequence[str] = ()  # titles that the model wrote, best first, if they were asked for


def choose_titles(texts: Sequence[str], candidates: Sequence[Sequence[str]], style: TitleStyle) -> list[Shown]:
    """Choose for each text its first usable candidate, or else its best keyphrase in the style of the course.

    A title of a text in which nothing is said, such as [Music], is invented, so it is not used.
    """
    own = [
        next(filter(is_usable_title, titles), "") if has_spoken_words(remove_opening_mark(text)) else ""
        for text, titles in zip(texts, candidates, strict=True)
    ]
    without = [text for text, title in zip(texts, own, strict=True) if not title]
    fallbacks = iter(_keyphrases(without, style))
    return [Shown(title, False) if title else Shown(next(fallbacks), True) for title in own]


def titles_frame(texts: Sequence[str], candidates: Sequence[list[str]], style: TitleStyle) -> pd.DataFrame:
    """Return one row per text.

    Returns:
        title: the title to show.
        candidates: the model's titles, best first, after the usual title of an opening.
        fallback: whether `title` is a keyphrase, because no candidate is usable.
    """
    shown = pd.DataFrame(choose_titles(texts, candidates, style), columns=Shown._fields)
    return shown.assign(candidates=list(candidates))[["title", "candidates", "fallback"]]


def shown_titles(predicted: pd.DataFrame) -> list[Shown]:
    """Return the rows of `titles_frame`."""
    rows = predicted[["title", "fallback", "candidates"]].itertuples(index=False)
    return [Shown(title, bool(fallback), list(candidates)) for title, fallback, candidates in rows]


def _keyphrases(texts: Sequence[str], style: TitleStyle) -> list[str]:
    no_training_split = pd.DataFrame({"title": []})
    texts = [remove_opening_mark(text) for text in texts]
    texts = [text if has_spoken_words(text) else "" for text in texts]
    phrases = best_keyphrase(no_training_split, [remove_sound_marks(text)[:_READ] for text in texts])
    titles = [clean_up_title(phrase, style, text) for phrase, text in zip(phrases, texts, strict=True)]
    return [title if is_usable_title(title) else "" for title in titles]
