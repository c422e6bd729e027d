"""Confidence intervals of mean scores over lessons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from pipeline.evaluation.intervals import Interval, interval_of_mean, read_unit, units_of

SCORES = st.floats(0, 1)
EXAMPLES = st.lists(st.tuples(st.integers(0, 9), SCORES), min_size=1, max_size=40)


def interval(examples: list[tuple[int, float]], confidence: float = 0.95) -> Interval:
    lessons, values = zip(*examples, strict=True)
    return interval_of_mean(values, lessons, confidence=confidence)


@pytest.mark.parametrize("lessons", [5, 8, 20])
@pytest.mark.parametrize("correlation", [0.1, 0.3])
def test_an_interval_contains_the_true_mean_with_its_confidence(lessons: int, correlation: float) -> None:
    random, held = np.random.default_rng(1), []
    for _ in range(400):
        units = np.repeat(np.arange(lessons), random.integers(4, 16, lessons))
        shared, own = random.normal(0, 0.15, lessons)[units], random.normal(0, 0.15, len(units))
        scores = 0.5 + correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
        found = interval_of_mean(scores, units, confidence=0.95)
        held.append(found.low <= 0.5 <= found.high)
    assert 0.92 <= np.mean(held) <= 0.985


@settings(max_examples=60, deadline=None)
@given(EXAMPLES)
def test_an_interval_contains_the_mean_and_stays_between_0_and_1(examples: list) -> None:
    found = interval(examples)
    assert found.mean == pytest.approx(np.mean([value for _, value in examples]), abs=1e-9)
    assert min(0, found.mean) <= found.low <= found.mean <= found.high <= max(1, found.mean)


@settings(max_examples=40, deadline=None)
@given(EXAMPLES, st.randoms(use_true_random=False))
def test_the_order_and_the_numbers_of_lessons_do_not_matter(examples: list, random: object) -> None:
    shuffled = [(100 - lesson, value) for lesson, value in examples]
    random.shuffle(shuffled)
    assert interval(examples) == interval(shuffled)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.3, 0.4), min_size=4, max_size=40), st.floats(-0.1, 0.1))
def test_a_shift_of_all_scores_shifts_the_interval(values: list[float], shift: float) -> None:
    lessons = [place % 4 for place in range(len(values))]
    a = interval_of_mean(values, lessons, confidence=0.9)
    b = interval_of_mean(np.add(values, shift), lessons, confidence=0.9)
    assert (b.low, b.high) == pytest.approx((a.low + shift, a.high + shift), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.4, 0.6), min_size=2, max_size=40))
def test_with_one_example_per_unit_the_interval_is_the_t_interval(values: list[float]) -> None:
    found = interval_of_mean(values, range(len(values)), confidence=0.95)
    error = np.std(values, ddof=1) / len(values) ** 0.5
    low, high = np.mean(values) + error * t.ppf([0.025, 0.975], len(values) - 1)
    assert (found.low, found.high) == pytest.approx((max(0, low), min(1, high)), abs=1e-9)


def test_copies_of_examples_do_not_narrow_the_interval() -> None:
    values, lessons = np.random.default_rng(1).random(40) / 5 + 0.4, np.repeat(np.arange(8), 5)
    once = interval_of_mean(values, lessons, confidence=0.95)
    ten = interval_of_mean(np.tile(values, 10), np.tile(lessons, 10), confidence=0.95)
    assert (once.low, once.high) == pytest.approx((ten.low, ten.high))


def test_correlated_examples_of_a_lesson_widen_the_interval() -> None:
    scores, lessons = np.repeat([0.1, 0.9, 0.4, 0.6, 0.2, 0.8], 10), np.repeat(np.arange(6), 10)
    over_lessons = interval_of_mean(scores, lessons, confidence=0.95)
    over_examples = interval_of_mean(scores, np.arange(60), confidence=0.95)
    assert over_lessons.high - over_lessons.low > 2.5 * (over_examples.high - over_examples.low)


def test_more_lessons_narrow_the_interval() -> None:
    values = np.random.default_rng(1).random(2000)
    few, many = (interval_of_mean(values[:n], range(n), confidence=0.95) for n in (20, 2000))
    assert many.high - many.low < (few.high - few.low) / 3


def test_more_confidence_widens_the_interval() -> None:
    values = np.random.default_rng(1).random(50)
    narrow, wide = (interval_of_mean(values, range(50), confidence=each) for each in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_interval_of_equal_values_has_no_width() -> None:
    assert interval_of_mean([0.3] * 7, [0, 0, 1, 1, 1, 2, 2], confidence=0.95) == Interval(0.3, 0.3, 0.3)


def test_one_lesson_gives_the_whole_range() -> None:
    assert interval_of_mean([0.3, 0.5], ["A", "A"], confidence=0.95) == Interval(0.4, 0.0, 1.0)


def test_no_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        interval_of_mean([], [], confidence=0.95)


def test_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be a number"):
        interval_of_mean([0.1, float("nan")], [0, 1], confidence=0.95)


@pytest.mark.parametrize(("by", "unit", "count"), [("lesson", "lesson", 3), ("random", "example", 4)])
def test_the_split_decides_the_independent_unit(by: str, unit: str, count: int, tmp_path) -> None:
    (tmp_path / "params.yaml").write_text(f"split: {{by: {by}}}")
    examples = pd.DataFrame({"course_title": ["A", "A", "B", "A"], "lesson_num": ["1", "2", "1", "1"]})
    assert read_unit(tmp_path / "params.yaml") == unit
    assert len(set(units_of(examples, unit))) == count
