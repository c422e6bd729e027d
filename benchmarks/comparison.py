"""Measure coverage of intervals and error rates of verdicts on simulated lessons, where the truth is known.

    python benchmarks/comparison.py [--trials 2000]

Scores are drawn from a distribution like that of ROUGE-1: many zeros, a few values, a long tail. Within a lesson they
are correlated. Lectern's methods are compared with methods that resample examples, and with the percentile bootstrap
over lessons. docs/measuring.md explains the methods and shows the tables.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import scipy
from scipy.optimize import brentq
from scipy.stats import norm

from pipeline.evaluation.comparison import compare, level_for_many_tests
from pipeline.evaluation.intervals import interval_of_mean
from pipeline.registry.repeated_tests import level_of_comparison

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
SEED = 1
RESAMPLES = 400
CORRELATIONS = (0.1, 0.28, 0.3)
LESSONS = (5, 8, 20)
LOOKS = 30

VALUES = np.array([0, 0.2, 0.25, 0.33, 0.4, 0.5, 0.67, 1])
SHARES = np.array([0.42, 0.1, 0.1, 0.1, 0.1, 0.09, 0.06, 0.03])
MEAN = float(VALUES @ SHARES)
BORDERS = norm.ppf(np.cumsum(SHARES)[:-1])

Bounds = Callable[[np.ndarray, np.ndarray], tuple[float, float]]
"""Function from scores and their lessons to the two ends of an interval."""


@dataclass(frozen=True)
class World:
    """Lessons with a number of examples each, whose scores are correlated within a lesson."""

    lessons: int
    correlation: float
    smallest: int = 7  # examples of a lesson: as in the test split of the embedded workbook
    largest: int = 11

    def units(self, random: np.random.Generator) -> np.ndarray:
        """Return the lesson of each example."""
        return np.repeat(np.arange(self.lessons), random.integers(self.smallest, self.largest + 1, self.lessons))

    def scores(self, units: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw one model's score for each example."""
        shared = latent_correlation(self.correlation)
        of_lesson, own = random.normal(size=units.max() + 1)[units], random.normal(size=len(units))
        return VALUES[np.searchsorted(BORDERS, shared**0.5 * of_lesson + (1 - shared) ** 0.5 * own)]


@functools.cache
def latent_correlation(wanted: float) -> float:
    """Return the correlation of normal variables whose scores have the correlation `wanted`."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    variance = float(VALUES**2 @ SHARES) - MEAN**2

    def correlation(latent: float) -> float:
        below = norm.cdf((BORDERS - latent**0.5 * points[:, None]) / (1 - latent) ** 0.5)
        shares = np.diff(below, axis=1, prepend=0, append=1)
        return float(weights @ (shares @ VALUES) ** 2 - MEAN**2) / variance

    return brentq(lambda latent: correlation(latent) - wanted, 1e-6, 0.99)


def over_examples(scores: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Compute the percentile bootstrap over examples."""
    drawn = np.random.default_rng(SEED).integers(0, len(scores), (RESAMPLES, len(scores)))
    return tuple(np.quantile(scores[drawn].mean(axis=1), [ALPHA / 2, 1 - ALPHA / 2]))


def over_lessons(scores: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Compute the percentile bootstrap over lessons."""
    sums, counts = np.bincount(units, weights=scores), np.bincount(units)
    drawn = np.random.default_rng(SEED).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    return tuple(np.quantile((drawn @ sums) / (drawn @ counts), [ALPHA / 2, 1 - ALPHA / 2]))


def jackknife(scores: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Compute Lectern's interval of a score."""
    found = interval_of_mean(scores, units, confidence=CONFIDENCE)
    return found.low, found.high


def sign_flip(differences: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Compute Lectern's bounds of a difference."""
    found = compare(differences, np.zeros(len(differences)), units, level=ALPHA)
    return (found.low, found.high) if found.finding != "too few" else (-1, 1)


def coverage(world: World, methods: list[Bounds], trials: int) -> list[tuple[float, float]]:
    """Measure per method the share of intervals that hold the true mean, and their median width."""
    random = np.random.default_rng(SEED)
    held, widths = np.empty((trials, len(methods))), np.empty((trials, len(methods)))
    for trial in range(trials):
        units = world.units(random)
        scores = world.scores(units, random)
        for place, method in enumerate(methods):
            low, high = method(scores, units)
            held[trial, place], widths[trial, place] = low <= MEAN <= high, high - low
    return [*zip(held.mean(axis=0), np.median(widths, axis=0), strict=True)]


def beaten(world: World, methods: list[Bounds], trials: int, lead: float = 0) -> list[float]:
    """Measure per method how often a model with a true lead of `lead` is said to beat another."""
    random = np.random.default_rng(SEED)
    wins = np.empty((trials, len(methods)))
    for trial in range(trials):
        units = world.units(random)
        differences = world.scores(units, random) - world.scores(units, random) + lead
        wins[trial] = [method(differences, units)[0] > 0 for method in methods]
    return [*wins.mean(axis=0)]


def promoted(world: World, trials: int, *, corrected: bool) -> float:
    """Measure the share of test splits on which at least one of `LOOKS` equal challengers beats the champion."""
    random, passed = np.random.default_rng(SEED), 0
    for _ in range(trials):
        units = world.units(random)
        champion = world.scores(units, random)
        levels = [level_of_comparison(look, ALPHA) if corrected else ALPHA for look in range(1, LOOKS + 1)]
        passed += any(
            compare(world.scores(units, random), champion, units, level=level).finding == "better" for level in levels
        )
    return passed / trials


def refused_for_a_slice(courses: int, lessons: int, trials: int) -> tuple[float, float]:
    """Measure the share of equal challengers refused for a course: by a bound of 0.05 on means, and by Lectern."""
    random, refused = np.random.default_rng(SEED), np.zeros(2)
    world = World(courses * lessons, 0.28)
    for _ in range(trials):
        units = world.units(random)
        champion, challenger = world.scores(units, random), world.scores(units, random)
        slices = [units // lessons == course for course in range(courses)]
        level = level_for_many_tests([lessons] * courses, ALPHA)
        means = [float((challenger - champion)[its].mean()) for its in slices]
        found = [compare(challenger[its], champion[its], units[its], level=level).finding for its in slices]
        refused += [min(means) < -0.05, "worse" in found]
    return tuple(refused / trials)


def tables(trials: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each table with its title."""
    intervals = {"over examples": over_examples, "over lessons": over_lessons, "Lectern": jackknife}
    tests = {"over examples": over_examples, "over lessons": over_lessons, "Lectern": sign_flip}
    worlds = [World(lessons, correlation) for correlation in CORRELATIONS for lessons in LESSONS]
    worlds += [World(lessons, 0.28, smallest=1, largest=24) for lessons in LESSONS]
    keys = [
        {
            "correlation": each.correlation,
            "lessons": each.lessons,
            "examples each": f"{each.smallest} to {each.largest}",
        }
        for each in worlds
    ]
    rows = []
    for key, world in zip(keys, worlds, strict=True):
        found = coverage(world, [*intervals.values()], trials)
        rows.append(
            key | {name: f"{held:.1%} ({width:.3f})" for name, (held, width) in zip(intervals, found, strict=True)}
        )
    yield f"Share of {CONFIDENCE:.0%} intervals that hold the true mean (median width)", pd.DataFrame(rows)
    rows = [
        key
        | {name: f"{share:.1%}" for name, share in zip(tests, beaten(world, [*tests.values()], trials), strict=True)}
        for key, world in zip(keys, worlds, strict=True)
    ]
    yield "How often an equal model is said to be better", pd.DataFrame(rows)
    rows = [
        {
            "lessons": lessons,
            "true lead": lead,
            "found": f"{beaten(World(lessons, 0.28), [sign_flip], trials, lead)[0]:.1%}",
        }
        for lead in (0.05, 0.1, 0.2)
        for lessons in LESSONS
    ]
    yield "How often the test finds a better model, at 5% and a correlation of 0.28", pd.DataFrame(rows)
    few = max(1, trials // 5)
    rows = [
        {
            "lessons": lessons,
            "each at 5%": f"{promoted(World(lessons, 0.28), few, corrected=False):.1%}",
            "Lectern": f"{promoted(World(lessons, 0.28), few, corrected=True):.1%}",
        }
        for lessons in (8, 12)
    ]
    yield f"How often one of {LOOKS} equal challengers beats the champion on one test split", pd.DataFrame(rows)
    rows = [
        {"courses": courses, "lessons each": lessons, "a mean below -0.05": f"{bare:.1%}", "Lectern": f"{tested:.1%}"}
        for courses, lessons in ((4, 2), (4, 8), (12, 9))
        for bare, tested in [refused_for_a_slice(courses, lessons, few)]
    ]
    yield "How often an equal challenger is refused for a course, with a correlation of 0.28", pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="simulated data sets for each figure")
    trials = parser.parse_args().trials
    print(f"{datetime.now(UTC):%Y-%m-%d}, scipy {scipy.__version__}, numpy {np.__version__}. {trials} trials.")
    for title, table in tables(trials):
        print(f"\n{title}:\n\n{as_markdown(table)}", flush=True)


def as_markdown(table: pd.DataFrame) -> str:
    rows = [table.columns, ["--:"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


if __name__ == "__main__":
    main()
