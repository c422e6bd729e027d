"""Bootstrap intervals: how far a mean, or the difference between two models, may be a matter of chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_VALUES_IN_MEMORY = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean, and the interval around it. `low <= mean <= high`."""

    mean: float
    low: float
    high: float


def interval_of_mean(values: Sequence[float], *, resamples: int, confidence: float, seed: int) -> Interval:
    """The mean of `values` with its percentile bootstrap interval.

    Efron and Tibshirani, 1993: "An Introduction to the Bootstrap", section 13.3. The percentile method rather than BCa,
    whose correction is undefined when nearly all values are equal, as the scores of a poor model are.

    Args:
        values: one an example, at least one.
        resamples: how often the examples are drawn anew.
        confidence: the share of resampled means that the interval holds, between 0 and 1.

    Raises:
        ValueError: there are no values, or one of them is not a number.
    """
    values = np.asarray(values, dtype=float)
    if not values.size or not np.isfinite(values).all():
        raise ValueError("an interval needs at least one value, and numbers only")
    if np.ptp(values) == 0:
        constant = float(values[0])
        return Interval(constant, constant, constant)
    from scipy.stats import bootstrap  # a second to load, which who reads scores need not wait

    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _VALUES_IN_MEMORY // values.size),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    mean = float(values.mean())
    return Interval(mean, min(mean, float(found.low)), max(mean, float(found.high)))


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, resamples: int, confidence: float, seed: int
) -> Interval:
    """The mean of `a - b` with its interval, where `a[i]` and `b[i]` are scores of the same example.

    The paired bootstrap of Koehn, 2004: "Statistical Significance Tests for Machine Translation Evaluation". `a` is the
    better with confidence if `low` is above 0.

    Raises:
        ValueError: they are not equally long, or there are none.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} scores are not of the same examples")
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return interval_of_mean(difference, resamples=resamples, confidence=confidence, seed=seed)
