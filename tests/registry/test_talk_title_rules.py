"""The gate's rules for the titles of talks."""

from __future__ import annotations

import pandas as pd
import pytest

from pipeline.registry.talk_title_rules import compare_talk_titles
from tests.registry.test_behaviour import TOLERANT

SUBJECTS = ("trees", "graphs", "tables", "queues")


def split(lessons: int) -> pd.DataFrame:
    """Lessons of four topics, the first of which is the opening."""
    return pd.DataFrame(
        [
            ("C", str(lesson), f"so now {subject} and how {subject} work", f"How {subject} work", subject == "trees")
            for lesson in range(lessons)
            for subject in SUBJECTS
        ],
        columns=["course_title", "lesson_num", "text", "title", "opens"],
    )


def broken(test: pd.DataFrame, candidates: list[list[str]]) -> list[bool]:
    """Return whether titles break the rule about repeats, and whether they break the rule about support."""
    compared = compare_talk_titles(test, candidates, TOLERANT, "lesson", level=0.05)
    return [found.finding == "worse" for _, _, found in compared]


@pytest.mark.parametrize(
    ("candidates", "repeats", "no_support"),
    [
        ([["Trees"], ["Graphs"], ["Tables"], ["Queues"]], False, False),
        ([["Work"], ["Work"], ["Tables"], ["Queues"]], True, False),
        ([["Work"], ["Work", "Graphs"], ["Tables"], ["Queues"]], False, False),  # together, they do not repeat
        ([["Trees"], ["Rockets"], ["Moons"], ["Stars"]], False, True),
        ([["Welcome"], ["Graphs"], ["Tables"], ["Queues"]], False, False),  # an opening needs no support
    ],
)
def test_a_version_fails_if_its_titles_repeat_more_or_have_less_support_than_the_true_ones(
    candidates: list[list[str]], repeats: bool, no_support: bool
) -> None:
    assert broken(split(6), candidates * 6) == [repeats, no_support]


def test_few_lessons_decide_nothing() -> None:
    test = split(3)
    rules = list(compare_talk_titles(test, [["Rockets"]] * len(test), TOLERANT, "lesson", level=0.05))
    assert [found.finding for *_, found in rules] == ["too few", "too few"]
    _, text, _ = rules[0]
    assert text == "too few lessons to tell: 12 examples of 3 lessons, and 5 are needed"
