"""Compute confidence intervals of mean scores over lessons. docs/measuring.md explains the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.data.workbook_schema import LESSON
from pipeline.paths import PARAMS
from pipeline.settings import mapping, read_params

Unit = Literal["lesson", "example"]
"""The independent observations: lessons, or examples with `split.by: random`."""

Scores = Sequence[float] | np.ndarray
Units = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval. `low <= mean <= high`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class UnitTotals:
    """The sum and the number of the values of each unit, in the same order."""

    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """The mean over examples, so a unit with more examples has more weight."""
        return float(self.sums.sum() / self.counts.sum())


def read_unit(params: Path = PARAMS) -> Unit:
    """Return the independent unit for the setting `split.by`."""
    return "example" if mapping(read_params(params).get("split")).get("by") == "random" else "lesson"


def units_of(examples: pd.DataFrame, unit: Unit) -> np.ndarray:
    """Return the number of each example's unit.

    Args:
        examples: one row per example, with the columns course_title and lesson_num.
        unit: the kind of unit.
    """
    if unit == "example":
        return np.arange(len(examples))
    return examples.groupby(LESSON, sort=False).ngroup().to_numpy()


def count_noun(number: int, what: str) -> str:
    """Format a number with its noun: "1 lesson", "8 lessons"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def sum_by_unit(values: Scores, units: Units) -> UnitTotals:
    """Sum values by unit, in an order that depends neither on the order of rows nor on the units' numbers.

    Raises:
        ValueError: there are no values, a value is NaN or infinite, or `units` has another length.
    """
    scores = np.asarray(values, dtype=float)
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError("there must be at least one score, and every score must be a number")
    if len(units) != len(scores):
        raise ValueError(f"{len(scores)} scores cannot belong to {len(units)} units")
    codes = np.unique(units, return_inverse=True)[1]
    # Sums of the same numbers in another order differ in the last digits.
    sums, counts = np.bincount(codes, weights=scores).round(12), np.bincount(codes)
    order = np.lexsort((sums, np.abs(sums), counts))
    return UnitTotals(sums[order], counts[order])


def interval_of_mean(values: Scores, units: Units, *, confidence: float) -> Interval:
    """Compute the mean of scores between 0 and 1 with its two-sided interval.

    The variance is the jackknife over units (the cluster-robust estimator CV3; MacKinnon, Nielsen and Webb, 2023,
    "Cluster-robust inference: A guide to empirical practice"). The quantile is Student's t, with the degrees of freedom
    of Bell and McCaffrey, 2002, "Bias reduction in standard errors for linear regression with multi-stage samples":
    there are fewer if a few units hold most of the examples. With one example per unit, this is the usual t interval.

    Args:
        values: one score per example, each between 0 and 1.
        units: the unit of each example, from `units_of`.
        confidence: the share of intervals that contain the true mean, between 0 and 1.

    Returns:
        The interval. A single unit gives the whole range from 0 to 1.

    Raises:
        ValueError: as in `sum_by_unit`.
    """
    from scipy.stats import t  # imported here because it takes a second, and reading a leaderboard does not need it

    found = sum_by_unit(values, units)
    mean = found.mean
    if len(found.sums) < 2:
        return Interval(mean, 0.0, 1.0)
    reach = float(t.ppf((1 + confidence) / 2, _degrees_of_freedom(found.counts))) * standard_error(found)
    return Interval(mean, min(mean, max(0.0, mean - reach)), max(mean, min(1.0, mean + reach)))


def standard_error(found: UnitTotals) -> float:
    """Return the jackknife standard error of the mean; NaN for a single unit."""
    units = len(found.sums)
    if units < 2:
        return float("nan")
    total = found.counts.sum()
    without = (found.sums.sum() - found.sums) / (total - found.counts)  # the mean without each unit
    return float(np.sqrt((units - 1) / units * np.sum((without - found.mean) ** 2)).round(12))


def _degrees_of_freedom(counts: np.ndarray) -> float:
    """Return Satterthwaite's approximation for the jackknife variance, from the sizes of the units."""
    sizes = counts / counts.sum()
    weights = 1 / (1 - sizes) ** 2
    trace = np.sum(weights * (sizes - sizes**2))
    trace_of_square = np.sum(weights**2 * (sizes**2 - 2 * sizes**3)) + np.sum(weights * sizes**2) ** 2
    return float(trace**2 / trace_of_square)
