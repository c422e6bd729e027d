"""Titles that need no training. A model that is no better than these is not worth its cost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps

import pandas as pd
from yake import KeywordExtractor

from pipeline.data.openings import opens, spoken, usual_opening

Baseline = Callable[[pd.DataFrame, Sequence[str]], list[str]]

_FIRST_WORDS = 6
_LONGEST_KEYPHRASE_WORDS = 3  # what YAKE's authors use
_NO_WORD = re.compile(r"\S{200,}+")  # longer than words are; YAKE's time grows with the square of a word's length


def first_words(train: pd.DataFrame, texts: Sequence[str]) -> list[str]:
    """The first six words of each text."""
    return [" ".join(text.split()[:_FIRST_WORDS]) for text in texts]


def frequent_title(train: pd.DataFrame, texts: Sequence[str]) -> list[str]:
    """For every text the title that `train` uses most often; of those used equally often, the first by alphabet."""
    counts = Counter(train["title"])
    title = min(counts, key=lambda title: (-counts[title], title), default="")
    return [title] * len(texts)


def best_keyphrase(train: pd.DataFrame, texts: Sequence[str]) -> list[str]:
    """The keyphrase of each text that YAKE ranks first, or "" where it finds none.

    Campos et al., 2020: "YAKE! Keyword Extraction from Single Documents using Multiple Local Features".
    """
    extractor = KeywordExtractor(lan="en", n=_LONGEST_KEYPHRASE_WORDS, top=1)
    found = [extractor.extract_keywords(_NO_WORD.sub(" ", text)) for text in texts]
    return [phrases[0][0] if phrases else "" for phrases in found]


def _knowing_openings(baseline: Baseline) -> Baseline:
    """`baseline`, but for openings, which are called as most are: that is no merit of a model."""

    @wraps(baseline)
    def titles(train: pd.DataFrame, texts: Sequence[str]) -> list[str]:
        usual = usual_opening(train)
        own = baseline(train, [spoken(text) for text in texts])
        return [usual if usual and opens(text) else title for text, title in zip(texts, own, strict=True)]

    return titles


# Each is given the training examples, of which it may learn, and the texts that want a title.
BASELINES: dict[str, Baseline] = {
    "first-words": _knowing_openings(first_words),
    "frequent-title": _knowing_openings(frequent_title),
    "keyphrase": _knowing_openings(best_keyphrase),
}
