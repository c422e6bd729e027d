"""Group examples by course and by length of the text, and compute the mean score of each group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.evaluation.intervals import Interval, Unit, interval_of_mean, units_of

LENGTH_BANDS = {
    "up to 100 words": 100,
    "101 to 250": 250,
    "251 to 500": 500,
    "501 to 1,000": 1000,
    "more than 1,000": np.inf,
}
"""Names of the bands, with the maximum number of words of each."""


@dataclass(frozen=True)
class Slice:
    """A subset of the examples, such as a course, and its mean score."""

    by: str  # course | length
    name: str
    examples: int
    units: int
    interval: Interval


def length_bands(texts: pd.Series) -> pd.Series:
    """Return the name of each text's length band."""
    words = texts.str.split().str.len()
    return pd.cut(words, [-1, *LENGTH_BANDS.values()], labels=list(LENGTH_BANDS)).astype("str")


def slice_masks(examples: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield each course and each length band that occurs: `course` or `length`, its name, and a mask of its examples.

    Args:
        examples: course_title, text.
    """
    courses, lengths = examples["course_title"], length_bands(examples["text"])
    for by, values, names in (("course", courses, sorted(courses.unique())), ("length", lengths, LENGTH_BANDS)):
        for name in names:
            mask = (values == name).to_numpy()
            if mask.any():
                yield by, name, mask


def score_slices(scored: pd.DataFrame, metric: str, unit: Unit, *, confidence: float) -> Iterator[Slice]:
    """Yield each course and each length band that occurs, with its mean score.

    Args:
        scored: one row per example: course_title, lesson_num, text, and a column named `metric`.
        metric: the name of the score.
        unit: the independent unit for the intervals.
        confidence: the confidence of the intervals.
    """
    units = units_of(scored, unit)
    for by, name, mask in slice_masks(scored):
        interval = interval_of_mean(scored.loc[mask, metric], units[mask], confidence=confidence)
        yield Slice(by, name, int(mask.sum()), len(set(units[mask])), interval)
