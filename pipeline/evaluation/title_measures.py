"""Measure titles without comparing them with the true ones: do they repeat, and does their text support them?"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pipeline.data.lesson_openings import is_opening
from pipeline.data.workbook_schema import LESSON
from pipeline.evaluation.keyphrases import stop_words
from pipeline.evaluation.predicted_titles import EXAMPLE
from pipeline.evaluation.title_words import support, title_key
from pipeline.json_records import Record

_KEY = EXAMPLE[1:]  # identifies an example within a split


class TitleMeasures(Record):
    """Two measures of the titles of a split, from 0 to 1."""

    repeats: float  # share of titles that another example of the same lesson has too
    support: float  # mean share of a title's content words that its text has; openings do not count


def measure_models(
    predictions: Mapping[str, pd.DataFrame], test: pd.DataFrame
) -> tuple[dict[str, TitleMeasures], TitleMeasures]:
    """Measure the titles of every model on the test split.

    Args:
        predictions: the scored titles by model, of both splits.
        test: the test split.

    Returns:
        The measures by model, and those of the true titles.
    """
    measured = {}
    for model, scored in predictions.items():
        titles = scored.loc[scored["split"] == "test", [*_KEY, "prediction"]]
        measured[model] = measure_titles(test.merge(titles, on=_KEY).assign(title=lambda found: found["prediction"]))
    return measured, measure_titles(test)


def measure_titles(examples: pd.DataFrame) -> TitleMeasures:
    """Measure the column `title` of examples. An empty title neither repeats nor has support."""
    repeated, supports = find_repeats(examples), find_supports(examples)[~is_opening(examples)]
    return TitleMeasures(
        repeats=float(repeated.mean()) if len(repeated) else 0.0,
        support=float(supports.mean()) if len(supports) else 0.0,
    )


def find_repeats(examples: pd.DataFrame) -> pd.Series:
    """Return for each example whether another example of its lesson has its title too."""
    keys = examples[LESSON].assign(key=examples["title"].map(title_key))
    return keys.duplicated(keep=False) & (examples["title"] != "")


def find_supports(examples: pd.DataFrame) -> pd.Series:
    """Return the support of each example's title in its text."""
    common = {lesson: stop_words(" ".join(texts)) for lesson, texts in examples.groupby(LESSON)["text"]}
    lessons = examples[LESSON].itertuples(index=False, name=None)
    supports = [
        support(title, text, common[lesson]) if title else 0.0
        for title, text, lesson in zip(examples["title"], examples["text"], lessons, strict=True)
    ]
    return pd.Series(supports, index=examples.index, dtype=float)
