"""What opens a lesson, and what its course calls it."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.merge import merge
from pipeline.data.openings import MARK, asked, marked, opens, spoken, usual_opening
from tests.data.test_merge import lines_of, topics_of


def lessons(*titles: str) -> pd.DataFrame:
    """Of each lesson the opening, called so, and another part."""
    parts = [part for n, title in enumerate(titles) for part in ((str(n), 0, title), (str(n), 60, "Rest"))]
    return merge(topics_of(*parts), lines_of(*parts)).examples


def test_what_is_said_first_in_each_lesson_opens_it() -> None:
    topics = topics_of(("2", 5, "Later"), ("1", 60, "Then"), ("1", 0, "Silent"), ("1", 30, "First"), ("2", 0, "Start"))
    lines = lines_of(("1", 30, "a"), ("1", 61, "b"), ("2", 1, "c"), ("2", 9, "d"))
    examples = merge(topics, lines).examples
    assert examples.loc[examples["opens"], "title"].tolist() == ["First", "Start"]
    assert asked(examples) == [f"{MARK} a", "b", f"{MARK} c", "d"]


def test_a_lesson_of_one_topic_has_no_opening() -> None:
    examples = merge(topics_of(("1", 0, "All of it"), ("1", 60, "Silent")), lines_of(("1", 0, "a"))).examples
    assert asked(examples) == ["a"]


def test_examples_that_do_not_say_what_opens_a_lesson_are_asked_as_they_are() -> None:
    assert asked(pd.DataFrame({"text": ["a", "b"]})) == ["a", "b"]


@given(st.text().map(str.strip))
def test_the_mark_comes_off_again(text: str) -> None:
    assert opens(marked(text))
    assert spoken(marked(text)) == text
    assert opens(text) or spoken(text) == text


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
    assert usual_opening(lessons(*titles)) == usual
