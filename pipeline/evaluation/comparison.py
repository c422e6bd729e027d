"""Compare two models with a paired sign-flip test over lessons. docs/measuring.md explains the method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.intervals import Interval, Scores, Units, UnitTotals, sum_by_unit

Finding = Literal["better", "worse", "not told apart", "too few"]

_MAX_EXACT_UNITS = 18  # all 2**18 subsets are counted; with more units, random subsets
_MIN_DRAWN = 99_999  # random subsets
_DRAWN_BELOW_LEVEL = 20  # at least this many random subsets lie below the level
_MAX_DRAWN = 2_000_000  # a level that needs more can only miss a lead, never invent one
_BITS_AT_ONCE = 2_000_000
_SEED = 1


@dataclass(frozen=True)
class Comparison:
    """The difference between two models on the same examples.

    `low` and `high` are one-sided bounds, and each is wrong with a probability of at most `level`. So the model is
    better, at that level, if and only if `low` is above 0, and worse if and only if `high` is below 0.
    """

    mean: float  # difference of the two means over examples
    low: float
    high: float
    p_value: float  # one-sided: probability that an equal model leads by this much
    level: float
    units: int

    @property
    def finding(self) -> Finding:
        if self.units < fewest_units(self.level):
            return "too few"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


def format_interval(interval: Interval | Comparison) -> str:
    """Format the mean, and its bounds in brackets, with three decimals."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def fewest_units(level: float) -> int:
    """Return the smallest number of units that can reach `level`: with n units the smallest p-value is 2**-n."""
    return math.ceil(-math.log2(level) - 1e-9)


def can_claim(units: int, level: float) -> bool:
    """Return whether any scores of that many units could reach `level`."""
    return units >= fewest_units(level) and (units <= _MAX_EXACT_UNITS or level * (_MAX_DRAWN + 1) >= 1)


def compare(a: Scores, b: Scores, units: Units, *, level: float) -> Comparison:
    """Test whether `a` is better than `b`, where `a[i]` and `b[i]` are scores between 0 and 1 of the same example.

    The null hypothesis: within each unit, exchanging the two models makes no difference. Then each unit's summed
    difference is as likely to have one sign as the other, and the p-value is the share of all sign patterns whose total
    is at least the observed one (Fisher, 1935, "The Design of Experiments", section 21). The bounds are all differences
    that the test does not reject: order statistics of the means over subsets of units (Hartigan, 1969, "Using subsample
    values as typical values"). With more than `_MAX_EXACT_UNITS` units, random patterns replace all patterns, and the
    observed one counts among them (Phipson and Smyth, 2010, "Permutation p-values should never be zero"). There are at
    most `_MAX_DRAWN`, so a level below 1 / `_MAX_DRAWN` is never reached.

    Args:
        units: the unit of each example, as `pipeline.evaluation.intervals.units_of` gives it.
        level: the probability of a wrong claim, one-sided, between 0 and 1.

    Returns:
        The comparison; its bounds are -1 and 1 if there are too few units for the level.

    Raises:
        ValueError: `a`, `b` and `units` differ in length, are empty, or hold NaN or infinity.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} scores cannot belong to the same examples")
    differences = sum_by_unit(np.subtract(a, b, dtype=float), units)
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


def level_for_many_tests(units: Sequence[int], level: float) -> float:
    """Return the level for each of several tests, so that the probability of any wrong claim is at most `level`.

    Bonferroni's correction, for the tests that can reach the corrected level at all: Tarone, 1990, "A modified
    Bonferroni method for discrete data". The other tests cannot make a wrong claim.

    Args:
        units: the number of units of each test.
    """
    tests = 1
    while sum(fewest_units(level / tests) <= count for count in units) > tests:
        tests += 1
    return level / tests


def _subset_means(differences: UnitTotals, level: float) -> np.ndarray:
    """Return the means over examples of all non-empty subsets of units, or of random subsets, in ascending order."""
    if len(differences.sums) <= _MAX_EXACT_UNITS:
        sums, counts = (_subset_sums(values)[1:] for values in (differences.sums, differences.counts))
    else:
        wanted = max(_MIN_DRAWN, math.ceil(_DRAWN_BELOW_LEVEL / level))
        sums, counts = _drawn_sums(differences, min(wanted, _MAX_DRAWN))
        sums, counts = sums[counts > 0], counts[counts > 0]
    return np.sort((sums / counts).round(12))


def _subset_sums(values: np.ndarray) -> np.ndarray:
    """Return the sum of every subset, the empty subset first."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums, sums + value])
    return sums


def _drawn_sums(differences: UnitTotals, subsets: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums and the numbers of examples of random subsets."""
    random, columns = np.random.default_rng(_SEED), np.stack([differences.sums, differences.counts], axis=1)
    at_once = max(1, _BITS_AT_ONCE // len(columns))
    drawn = [
        random.integers(0, 2, (min(at_once, subsets - begun), len(columns)), dtype=np.int8) @ columns
        for begun in range(0, subsets, at_once)
    ]
    sums, counts = np.concatenate(drawn).T
    return sums, counts
