"""Paired comparison of two models by a sign-flip test over lessons. docs/measuring.md explains the method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.intervals import Totals, totals

Finding = Literal["better", "worse", "not told apart", "too few"]

_MOST_UNITS = 18  # whose subsets are all counted: 2 to this power
_FEWEST_DRAWN = 99_999  # subsets drawn where there are more units
_DRAWN_PER_LEVEL = 20  # that at least so many patterns lie below the level
_MOST_DRAWN = 2_000_000  # a smaller level than its share of them allows gets fewer, which can only hide a lead
_BITS_AT_ONCE = 2_000_000
_SEED = 1


@dataclass(frozen=True)
class Comparison:
    """Difference between two models on the same examples.

    `low` and `high` are one-sided bounds: each is wrong with a probability of at most `level`. So the model is better,
    at that level, if and only if `low` is above 0, and worse if and only if `high` is below 0.
    """

    mean: float  # difference of the two means over examples
    low: float
    high: float
    p_value: float  # one-sided: chance that an equal model leads by this much
    level: float
    units: int

    @property
    def finding(self) -> Finding:
        if self.units < fewest_units(self.level):
            return "too few"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


def fewest_units(level: float) -> int:
    """The number of units below which no result reaches `level`: of n units, the smallest p-value is 2 to the -n."""
    return math.ceil(-math.log2(level) - 1e-9)


def can_claim(units: int, level: float) -> bool:
    """Tell whether any scores of that many units could reach `level`."""
    return units >= fewest_units(level) and (units <= _MOST_UNITS or level * (_MOST_DRAWN + 1) >= 1)


def compare(a: Sequence[float], b: Sequence[float], units: Sequence[int], *, level: float) -> Comparison:
    """Test whether `a` is better than `b`, where `a[i]` and `b[i]` are scores between 0 and 1 of the same example.

    The null hypothesis: within each unit, exchanging the two models makes no difference. Then each unit's summed
    difference is as likely to have one sign as the other, and the p-value is the share of all sign patterns whose total
    is at least the observed one (Fisher, 1935, "The Design of Experiments", section 21). The bounds are all differences
    that the test does not reject: order statistics of the means over subsets of units (Hartigan, 1969, "Using subsample
    values as typical values"). Beyond `_MOST_UNITS` units, random patterns stand for all, and the observed one counts
    among them (Phipson and Smyth, 2010, "Permutation p-values should never be zero"). There are at most `_MOST_DRAWN`,
    so a level below 1 / `_MOST_DRAWN` is never reached.

    Args:
        units: the unit of each example, as `pipeline.evaluation.intervals.units_of` gives it.
        level: the probability of a wrong claim, one-sided, between 0 and 1.

    Returns:
        Bounds of -1 and 1 where there are too few units for the level.

    Raises:
        ValueError: `a`, `b` and `units` differ in length, are empty, or hold what is not a number.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} scores are not of the same examples")
    differences = totals(np.subtract(a, b, dtype=float), units)
    # A sign pattern flips the units outside a subset. Its total reaches the observed one if and only if the mean over
    # the flipped units is not above the difference in question.
    means = _subset_means(differences, level)
    rejected = math.floor(level * (len(means) + 1) + 1e-9)  # of all patterns, the observed one included
    low, high = (means[rejected - 1], means[-rejected]) if rejected else (-1.0, 1.0)
    return Comparison(
        mean=differences.mean,
        low=float(min(low, differences.mean)),
        high=float(max(high, differences.mean)),
        p_value=float((1 + np.searchsorted(means, 0, side="right")) / (1 + len(means))),
        level=level,
        units=len(differences.sums),
    )


def level_of_many(units: Sequence[int], level: float) -> float:
    """The level for each of several tests, so that the chance of any wrong claim is at most `level`.

    Bonferroni's correction, for the tests that can reach the corrected level at all: Tarone, 1990, "A modified
    Bonferroni method for discrete data". The others cannot make a wrong claim.

    Args:
        units: the number of units of each test.
    """
    tests = 1
    while sum(fewest_units(level / tests) <= count for count in units) > tests:
        tests += 1
    return level / tests


def _subset_means(differences: Totals, level: float) -> np.ndarray:
    """The mean over examples of every non-empty subset of units, or of many random ones, in ascending order."""
    if len(differences.sums) <= _MOST_UNITS:
        sums, counts = (_subset_sums(values)[1:] for values in (differences.sums, differences.counts))
    else:
        wanted = max(_FEWEST_DRAWN, math.ceil(_DRAWN_PER_LEVEL / level))
        sums, counts = _drawn_sums(differences, min(wanted, _MOST_DRAWN))
        sums, counts = sums[counts > 0], counts[counts > 0]
    return np.sort((sums / counts).round(12))


def _subset_sums(values: np.ndarray) -> np.ndarray:
    """The sum of every subset, the empty one first."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums, sums + value])
    return sums


def _drawn_sums(differences: Totals, subsets: int) -> tuple[np.ndarray, np.ndarray]:
    random, columns = np.random.default_rng(_SEED), np.stack([differences.sums, differences.counts], axis=1)
    at_once = max(1, _BITS_AT_ONCE // len(columns))
    drawn = [
        random.integers(0, 2, (min(at_once, subsets - begun), len(columns)), dtype=np.int8) @ columns
        for begun in range(0, subsets, at_once)
    ]
    sums, counts = np.concatenate(drawn).T
    return sums, counts
