"""The title that a reader is shown: the model's, or a keyphrase of the text where the model wrote nothing of use.

A model is measured, ranked and judged by what it wrote itself. What stands in for it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from pipeline.data.lesson_openings import remove_opening_mark
from pipeline.evaluation.baselines import best_keyphrase
from pipeline.models.title_cleanup import TitleStyle, tidy, usable, without_marks

_READ = 120_000  # characters of a text, 20,000 words as they are spoken: 2 s at most, where a million words take 90


class Shown(NamedTuple):
    title: str  # empty where the text has no keyphrase either
    fallback: bool  # it is a keyphrase


def shown(texts: Sequence[str], candidates: Sequence[Sequence[str]], style: TitleStyle) -> list[Shown]:
    """For each text the first of its `candidates` that is of use, else its best keyphrase in the course's style."""
    own = [next(filter(usable, titles), "") for titles in candidates]
    lacking = [text for text, title in zip(texts, own, strict=True) if not title]
    stand_ins = iter(_keyphrases(lacking, style))
    return [Shown(title, False) if title else Shown(next(stand_ins), True) for title in own]


def answer(texts: Sequence[str], candidates: Sequence[list[str]], style: TitleStyle) -> pd.DataFrame:
    """A row a text: `title`, the one to show; `candidates`, the best first: what the model wrote, after the usual title
    of an opening; `fallback`, whether the title is a keyphrase of the text, since none of those is of use."""
    titles, fallbacks = zip(*shown(texts, candidates, style), strict=True) if texts else ((), ())
    return pd.DataFrame({"title": titles, "candidates": list(candidates), "fallback": fallbacks})


def _keyphrases(texts: Sequence[str], style: TitleStyle) -> list[str]:
    nothing_to_learn_of = pd.DataFrame({"title": []})
    texts = [remove_opening_mark(text) for text in texts]
    phrases = best_keyphrase(nothing_to_learn_of, [without_marks(text)[:_READ] for text in texts])
    titles = [tidy(phrase, style, text) for phrase, text in zip(phrases, texts, strict=True)]
    return [title if usable(title) else "" for title in titles]
