"""Scores by what examples have in common: their course, or how long their texts are."""

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
"""Their names, and the most words that a text of each has."""


@dataclass(frozen=True)
class Slice:
    """A subset of the examples and its mean score."""

    by: str  # course | length
    name: str
    examples: int
    units: int
    interval: Interval


def length_bands(texts: pd.Series) -> pd.Series:
    """The name of each text's band of lengths."""
    words = texts.str.split().str.len()
    return pd.cut(words, [-1, *LENGTH_BANDS.values()], labels=list(LENGTH_BANDS)).astype("str")


def groups(examples: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Each course, and each band of lengths, that occurs: `course` or `length`, its name, and which examples are its.

    Args:
        examples: course_title, text.
    """
    courses, lengths = examples["course_title"], length_bands(examples["text"])
    for by, values, names in (("course", courses, sorted(courses.unique())), ("length", lengths, LENGTH_BANDS)):
        for name in names:
            its = (values == name).to_numpy()
            if its.any():
                yield by, name, its


def slices(scored: pd.DataFrame, metric: str, unit: Unit, *, confidence: float) -> Iterator[Slice]:
    """Every course and every band of lengths that occurs, with its mean score.

    Args:
        scored: one row per example: course_title, lesson_num, text, and a column named `metric`.
        unit: that the intervals are computed over.
        confidence: of the intervals.
    """
    units = units_of(scored, unit)
    for by, name, its in groups(scored):
        interval = interval_of_mean(scored.loc[its, metric], units[its], confidence=confidence)
        yield Slice(by, name, int(its.sum()), len(set(units[its])), interval)
