"""Give titles without training. A model must beat these baselines to be worth its cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps

import pandas as pd

from pipeline.data.lesson_openings import has_opening_mark, remove_opening_mark, usual_opening_title
from pipeline.evaluation.keyphrases import best_phrase

Baseline = Callable[[pd.DataFrame, Sequence[str]], list[str]]

_FIRST_WORDS = 6


def first_words(train: pd.DataFrame, texts: Sequence[str]) -> list[str]:
    """Return the first six words of each text."""
    return [" ".join(text.split()[:_FIRST_WORDS]) for text in texts]


def frequent_title(train: pd.DataFrame, texts: Sequence[str]) -> list[str]:
    """Return the most frequent title of `train` for every text; with a tie, the first by alphabet."""
    counts = Counter(train["title"])
    title = min(counts, key=lambda title: (-counts[title], title), default="")
    return [title] * len(texts)


def best_keyphrase(train: pd.DataFrame, texts: Sequence[str]) -> list[str]:
    """Return the best keyphrase of each text, or "" for a text without a keyphrase."""
    return [best_phrase(text) for text in texts]


def _with_usual_openings(baseline: Baseline) -> Baseline:
    """Make a baseline give openings their usual title, so that a model gets no credit for learning it."""

    @wraps(baseline)
    def titles(train: pd.DataFrame, texts: Sequence[str]) -> list[str]:
        usual = usual_opening_title(train)
        own = baseline(train, [remove_opening_mark(text) for text in texts])
        return [usual if usual and has_opening_mark(text) else title for text, title in zip(texts, own, strict=True)]

    return titles


BASELINES: dict[str, Baseline] = {
    "first-words": _with_usual_openings(first_words),
    "frequent-title": _with_usual_openings(frequent_title),
    "keyphrase": _with_usual_openings(best_keyphrase),
}
"""Functions from training examples and texts to one title per text."""
