"""How far a mean may be a matter of chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.intervals import Interval, interval_of_mean, paired_difference

HOW = {"resamples": 300, "confidence": 0.95, "seed": 1}
SCORES = st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=30))
def test_the_interval_holds_the_mean(values):
    interval = interval_of_mean(values, **HOW)
    assert interval.low <= interval.mean <= interval.high


@settings(max_examples=30, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=30))
def test_the_interval_lies_within_the_values(values):
    interval = interval_of_mean(values, **HOW)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_more_examples_make_it_narrower():
    values = np.random.default_rng(1).random(2000)
    few, many = interval_of_mean(values[:20], **HOW), interval_of_mean(values, **HOW)
    assert many.high - many.low < (few.high - few.low) / 3


def test_it_agrees_with_the_standard_error():
    values = np.random.default_rng(1).random(500)
    interval = interval_of_mean(values, resamples=5000, confidence=0.95, seed=1)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 500**0.5, rel=0.05)


def test_more_confidence_makes_it_wider():
    values = np.random.default_rng(1).random(50)
    narrow = interval_of_mean(values, resamples=300, confidence=0.5, seed=1)
    wide = interval_of_mean(values, resamples=300, confidence=0.99, seed=1)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(1).random(50)
    assert interval_of_mean(values, **HOW) == interval_of_mean(values, **HOW)


def test_equal_values_have_no_width():
    assert interval_of_mean([0.3] * 7, **HOW) == Interval(0.3, 0.3, 0.3)


def test_one_value_has_no_width():
    assert interval_of_mean([0.3], **HOW) == Interval(0.3, 0.3, 0.3)


def test_no_values_are_an_error():
    with pytest.raises(ValueError, match="at least one value"):
        interval_of_mean([], **HOW)


def test_what_is_not_a_number_is_an_error():
    with pytest.raises(ValueError, match="numbers only"):
        interval_of_mean([0.1, float("nan")], **HOW)


def test_a_model_does_not_differ_from_itself():
    values = np.random.default_rng(1).random(50)
    assert paired_difference(values, values, **HOW) == Interval(0, 0, 0)


def test_a_small_steady_lead_shows_when_examples_are_paired():
    # Examples differ far more from each other than the two models do on any one of them.
    noise = np.random.default_rng(1)
    worse = noise.random(60)
    better = worse + 0.02 + noise.normal(0, 0.01, 60)
    assert paired_difference(better, worse, **HOW).low > 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=20))
def test_turning_the_two_around_turns_the_sign(pairs):
    a, b = zip(*pairs, strict=True)
    assert paired_difference(a, b, **HOW).mean == pytest.approx(-paired_difference(b, a, **HOW).mean)


def test_scores_of_different_examples_are_an_error():
    with pytest.raises(ValueError, match="not of the same examples"):
        paired_difference([0.1], [0.1, 0.2], **HOW)


def test_many_examples_fit_into_memory():
    assert interval_of_mean(np.linspace(0, 1, 100_000), **HOW).mean == pytest.approx(0.5)
