"""What opens a lesson, and what its course calls it."""

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
    """Of each lesson the opening, called so, and another part."""
    parts = [part for n, title in enumerate(titles) for part in ((str(n), 0, title), (str(n), 60, "Rest"))]
    return build_examples(topics_of(*parts), lines_of(*parts)).examples


def test_what_is_said_first_in_each_lesson_opens_it() -> None:
    topics = topics_of(("2", 5, "Later"), ("1", 60, "Then"), ("1", 0, "Silent"), ("1", 30, "First"), ("2", 0, "Start"))
    lines = lines_of(("1", 30, "a"), ("1", 61, "b"), ("2", 1, "c"), ("2", 9, "d"))
    examples = build_examples(topics, lines).examples
    assert examples.loc[examples["opens"], "title"].tolist() == ["First", "Start"]
    assert marked_texts(examples) == [f"{OPENING_MARK} a", "b", f"{OPENING_MARK} c", "d"]


def test_a_lesson_of_one_topic_has_no_opening() -> None:
    examples = build_examples(topics_of(("1", 0, "All of it"), ("1", 60, "Silent")), lines_of(("1", 0, "a"))).examples
    assert marked_texts(examples) == ["a"]


def test_examples_that_do_not_say_what_opens_a_lesson_are_asked_as_they_are() -> None:
    assert marked_texts(pd.DataFrame({"text": ["a", "b"]})) == ["a", "b"]


@given(st.text().map(str.strip))
def test_the_mark_comes_off_again(text: str) -> None:
    assert has_opening_mark(mark_opening(text))
    assert remove_opening_mark(mark_opening(text)) == text
    assert has_opening_mark(text) or remove_opening_mark(text) == text


@pytest.mark.parametrize(
    ("titles", "usual"),
    [
        (["Intro"] * 3 + ["Clouds", "Rain"], "Intro"),
        (["Intro"] * 3 + ["Clouds", "Rain", "Snow"], ""),  # half are not most
        (["Intro"] * 4, ""),  # too few lessons
        ([], ""),
    ],
)
def test_a_course_has_a_usual_opening_where_most_of_its_lessons_agree(titles: list[str], usual: str) -> None:
    assert usual_opening_title(lessons(*titles)) == usual
