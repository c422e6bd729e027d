"""The comparison of two models: its level holds on few lessons, and its bounds agree with its p-value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from pipeline.evaluation.comparison import can_claim, compare, fewest_units, level_for_many_tests

LEVEL = 0.05
SCORES = st.floats(0, 1).map(lambda score: round(score, 3))
EXAMPLES = st.lists(st.tuples(st.integers(0, 8), SCORES, SCORES), min_size=1, max_size=40)


def columns(examples: list[tuple[int, float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scores of two models and the lesson of each example."""
    lessons, ours, theirs = zip(*examples, strict=True)
    return np.array(ours), np.array(theirs), np.array(lessons)


def equal_models(lessons: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores of two equally good models, correlated within each lesson."""
    sizes = random.integers(1, 20, lessons)
    units = np.repeat(np.arange(lessons), sizes)
    ours, theirs = (
        np.clip(0.3 + random.normal(0, 0.15, lessons)[units] + random.normal(0, 0.2, len(units)), 0, 1)
        for _ in range(2)
    )
    return ours, theirs, units


@pytest.mark.parametrize("lessons", [4, 5, 8, 25])
def test_an_equal_model_is_rarely_called_better(lessons: int) -> None:
    random = np.random.default_rng(1)
    found = [compare(*equal_models(lessons, random), level=LEVEL).finding for _ in range(600 if lessons < 20 else 50)]
    standard_error = (LEVEL * (1 - LEVEL) / len(found)) ** 0.5
    assert np.mean([finding == "better" for finding in found]) <= LEVEL + 2.5 * standard_error


def test_a_clearly_better_model_is_found_on_eight_lessons() -> None:
    random = np.random.default_rng(1)
    trials = [equal_models(8, random) for _ in range(50)]
    found = [compare(ours, theirs - 0.35, units, level=LEVEL).finding for ours, theirs, units in trials]
    assert np.mean([finding == "better" for finding in found]) > 0.8


@pytest.mark.parametrize(("level", "lessons"), [(0.05, 5), (0.025, 6), (0.01, 7), (0.25, 2), (0.5, 1)])
def test_the_level_decides_how_many_lessons_are_needed(level: float, lessons: int) -> None:
    assert fewest_units(level) == lessons
    for count, finding in ((lessons, "better"), (lessons - 1, "too few")):
        if count:
            assert compare([0.9] * count, [0.1] * count, range(count), level=level).finding == finding


def test_many_examples_of_one_lesson_are_too_few() -> None:
    found = compare([0.9] * 50, [0.1] * 50, [0] * 50, level=LEVEL)
    assert (found.finding, found.low, found.high, found.p_value) == ("too few", -1, 1, 0.5)


def test_many_units_can_be_told_apart() -> None:
    random = np.random.default_rng(1)
    ours, theirs = random.random((2, 300))
    assert compare(ours + 0.1, theirs, range(300), level=LEVEL).finding == "better"
    assert compare(ours, ours, range(300), level=LEVEL).finding == "not told apart"


@settings(max_examples=60, deadline=None)
@given(EXAMPLES, st.sampled_from([0.3, 0.05, 0.025]))
def test_p_value_bounds_and_finding_agree(examples: list, level: float) -> None:
    found = compare(*columns(examples), level=level)
    assert (found.low > 0) == (found.p_value <= level) == (found.finding == "better")
    assert found.low <= found.mean <= found.high


@settings(max_examples=40, deadline=None)
@given(EXAMPLES)
def test_the_p_value_is_that_of_scipys_exact_permutation_test(examples: list) -> None:
    ours, theirs, lessons = columns(examples)
    by_lesson = np.array([np.sum((ours - theirs)[lessons == lesson]) for lesson in np.unique(lessons)]).round(12)
    if len(by_lesson) > 1:
        theirs_too = permutation_test(
            (by_lesson,), np.sum, permutation_type="samples", alternative="greater", n_resamples=np.inf
        )
        assert compare(*columns(examples), level=LEVEL).p_value == pytest.approx(theirs_too.pvalue)


@settings(max_examples=40, deadline=None)
@given(EXAMPLES, st.randoms(use_true_random=False))
def test_the_order_and_the_numbers_of_lessons_do_not_matter(examples: list, random: object) -> None:
    shuffled = [(100 - lesson, ours, theirs) for lesson, ours, theirs in examples]
    random.shuffle(shuffled)
    a, b = compare(*columns(examples), level=LEVEL), compare(*columns(shuffled), level=LEVEL)
    assert (a.low, a.high, a.p_value, a.finding) == (b.low, b.high, b.p_value, b.finding)


@settings(max_examples=40, deadline=None)
@given(EXAMPLES)
def test_exchanging_the_models_reverses_the_result(examples: list) -> None:
    ours, theirs, lessons = columns(examples)
    a, b = compare(ours, theirs, lessons, level=LEVEL), compare(theirs, ours, lessons, level=LEVEL)
    assert (a.low, a.high, a.mean) == pytest.approx((-b.high, -b.low, -b.mean))
    assert (a.finding == "better") == (b.finding == "worse")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), SCORES, SCORES), min_size=9, max_size=40), st.floats(-0.2, 0.2))
def test_a_shift_of_all_differences_shifts_the_bounds(examples: list, shift: float) -> None:
    ours, theirs, lessons = columns([(place % 9, *scores) for place, (_, *scores) in enumerate(examples)])
    a, b = compare(ours, theirs, lessons, level=LEVEL), compare(ours + shift, theirs, lessons, level=LEVEL)
    assert (b.low, b.high) == pytest.approx((a.low + shift, a.high + shift))


def test_bounds_of_random_sign_patterns_are_close_to_those_of_all() -> None:
    random = np.random.default_rng(1)
    ours, theirs = random.random((2, 18))
    exact = compare(ours, theirs, range(18), level=LEVEL)
    # A nineteenth lesson without a difference moves the sums of no pattern.
    drawn = compare([*ours, 0.5], [*theirs, 0.5], range(19), level=LEVEL)
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.005)


def test_tiny_levels_need_bounded_memory_and_claim_nothing() -> None:
    lessons = 60
    level = 1e-12  # would take 20 million million patterns
    found = compare([0.9] * lessons, [0.1] * lessons, range(lessons), level=level)
    assert (found.finding, found.low, found.high) == ("not told apart", -1, 1)
    assert not can_claim(lessons, level)
    assert can_claim(lessons, 1e-6)


def test_rounding_errors_are_no_difference() -> None:
    lessons = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert compare([0.1, 0.2, 0.0] * 5, [0.0, 0.0, 0.3] * 5, lessons, level=LEVEL).finding == "not told apart"


@pytest.mark.parametrize(("ours", "theirs", "units"), [([0.1], [0.1, 0.2], [0]), ([0.1], [0.2], [0, 1]), ([], [], [])])
def test_sequences_of_different_lengths_are_an_error(ours: list, theirs: list, units: list) -> None:
    with pytest.raises(ValueError, match="score"):
        compare(ours, theirs, units, level=LEVEL)


@pytest.mark.parametrize(
    ("lessons", "tests"), [([8] * 4, 4), ([8, 8, 2, 2, 2], 2), ([5, 5], 2), ([6, 6], 2), ([1], 1), ([], 1)]
)
def test_the_level_is_divided_among_the_tests_that_can_reach_it(lessons: list[int], tests: int) -> None:
    assert level_for_many_tests(lessons, 0.05) == 0.05 / tests
