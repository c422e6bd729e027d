"""Laws of the score of chapters and titles together, and examples computed by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.soda import TitledSpan, soda_c

WORDS = st.lists(st.sampled_from(["sorting", "hash", "tables", "graphs"]), min_size=1, max_size=3).map(" ".join)


@st.composite
def chapters(draw: st.DrawFn) -> list[TitledSpan]:
    starts = sorted(draw(st.sets(st.integers(1, 99), max_size=5)))
    edges = [0, *starts, 100]
    return [TitledSpan(start, end, draw(WORDS)) for start, end in pairwise(edges)]


@settings(deadline=None, max_examples=30)
@given(chapters(), chapters())
def test_the_score_is_symmetric_and_1_only_for_equal_chapters(one: list[TitledSpan], other: list[TitledSpan]) -> None:
    assert 0 <= soda_c(one, other) <= 1
    assert soda_c(one, other) == pytest.approx(soda_c(other, one))
    assert soda_c(one, one) == pytest.approx(1)


TRUE = [TitledSpan(0, 60, "Hash tables"), TitledSpan(60, 100, "Sorting")]


@pytest.mark.parametrize(
    ("found", "score"),
    [
        ([], 0),
        ([TitledSpan(0, 100, "Graphs")], 0),
        # Right places; one title is right, and the other shares one of two words: (1 + 0.5) / 2.
        ([TitledSpan(0, 60, "Hash functions"), TitledSpan(60, 100, "Sorting")], 0.75),
        # Right titles; the first overlaps by 30 of 60 seconds, the second by 40 of 70.
        ([TitledSpan(0, 30, "Hash tables"), TitledSpan(30, 100, "Sorting")], (30 / 60 + 40 / 70) / 2),
        # One chapter for two topics can be paired with one of them only, with the first: 2 * 0.6 / 3.
        ([TitledSpan(0, 100, "Hash tables and sorting")], 2 * 0.6 * (2 * 2 / 6) / 3),
        # Titles in the wrong order share no time, and pairs in the order of time share no word.
        ([TitledSpan(0, 60, "Sorting"), TitledSpan(60, 100, "Hash tables")], 0),
        # Too many chapters cost precision.
        ([*TRUE, TitledSpan(100, 110, "Questions")], 2 * 2 / 5),
    ],
)
def test_places_and_titles_both_count(found: list[TitledSpan], score: float) -> None:
    assert soda_c(found, TRUE) == pytest.approx(score)


def test_titles_in_other_scripts_are_compared() -> None:
    one = [TitledSpan(0, 9, "Хеш таблицы")]
    assert soda_c(one, one) == 1
    assert soda_c(one, [TitledSpan(0, 9, "Сортировка")]) == 0
