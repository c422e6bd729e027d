"""Lesson openings, their mark and their usual title."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.examples import build_examples
from pipeline.data.lesson_openings import (
    OPENING_MARK,
    has_opening_mark,
    mark_opening,
    marked_texts,
    remove_opening_mark,
    usual_opening_title,
)
from tests.data.test_examples import lines_of, topics_of


def lessons(*titles: str) -> pd.DataFrame:
    """Build lessons of two examples, with the given titles for the openings."""
    parts = [part for n, title in enumerate(titles) for part in ((str(n), 0, title), (str(n), 60, "Rest"))]
    return build_examples(topics_of(*parts), lines_of(*parts)).examples


def test_the_first_example_with_lines_opens_its_lesson() -> None:
    topics = topics_of(("2", 5, "Later"), ("1", 60, "Then"), ("1", 0, "Silent"), ("1", 30, "First"), ("2", 0, "Start"))
    lines = lines_of(("1", 30, "a"), ("1", 61, "b"), ("2", 1, "c"), ("2", 9, "d"))
    examples = build_examples(topics, lines).examples
    assert examples.loc[examples["opens"], "title"].tolist() == ["First", "Start"]
    assert marked_texts(examples) == [f"{OPENING_MARK} a", "b", f"{OPENING_MARK} c", "d"]


def test_a_lesson_of_one_topic_has_no_opening() -> None:
    examples = build_examples(topics_of(("1", 0, "All of it"), ("1", 60, "Silent")), lines_of(("1", 0, "a"))).examples
    assert marked_texts(examples) == ["a"]


def test_examples_without_the_column_opens_have_no_marks() -> None:
    assert marked_texts(pd.DataFrame({"text": ["a", "b"]})) == ["a", "b"]


@given(st.text().map(str.strip))
def test_the_mark_can_be_removed(text: str) -> None:
    assert has_opening_mark(mark_opening(text))
    assert remove_opening_mark(mark_opening(text)) == text
    assert has_opening_mark(text) or remove_opening_mark(text) == text


@pytest.mark.parametrize(
    ("titles", "usual"),
    [
        (["Intro"] * 3 + ["Clouds", "Rain"], "Intro"),
        (["Intro"] * 3 + ["Clouds", "Rain", "Snow"], ""),  # exactly half is too few
        (["Intro"] * 4, ""),  # too few lessons
        ([], ""),
    ],
)
def test_the_usual_opening_title_is_that_of_more_than_half_of_the_lessons(titles: list[str], usual: str) -> None:
    assert usual_opening_title(lessons(*titles)) == usual
