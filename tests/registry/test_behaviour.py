"""The behavioural tests that the gate applies to titles."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.data.lesson_openings import mark_opening
from pipeline.models.title_cleanup import clean_up_title
from pipeline.registry.behaviour import BehaviourSettings, behaviours

TOLERANT = BehaviourSettings(words=16, copied=0.25, repeated=0, agreement=0.3, different=0.7)
TEXTS = [f"so today we talk about {subject} and why {subject} matters to us" for subject in ("trees", "loss", "data")]


def sensible(text: str) -> str:
    """Return the title of a good model, which ignores all modifications of `TEXTS`."""
    return next((f"Why {subject} matters" for subject in ("trees", "loss", "data") if subject in text.lower()), "Title")


@pytest.mark.parametrize(
    ("fault", "titler"),
    [
        ("gives every text a title", lambda text: ""),
        ("writes no more than 16 words", lambda text: " ".join(f"w{place}" for place in range(17))),
        ("repeats no words within a title", lambda text: "the the trees"),
        ("repeats no words within a title", lambda text: "of trees and of trees"),
        ("does not copy the text's first words", lambda text: " ".join(text.split()[:4])),
        ("gives different texts different titles", lambda text: "Welcome"),
        ("is not disturbed by filler words", lambda text: "Um" if text.startswith("um") else sensible(text)),
        ("is not disturbed by capital letters", lambda text: "CAPITALS" if text.isupper() else sensible(text)),
        ("copies no marks such as [Music]", lambda text: f"{sensible(text)} {'[music]' if '[Music]' in text else ''}"),
        (
            "copies no marks such as [Music]",
            lambda text: clean_up_title("[Music]" if "[Music]" in text else sensible(text)),
        ),
    ],
)
def test_each_fault_fails_its_test_and_a_good_model_none(fault: str, titler: Callable[[str], str]) -> None:
    tried = behaviours(TEXTS, TOLERANT)
    assert fault in [one.name for one in tried if not one.check([titler(text) for text in one.texts]).passed]
    assert all(one.check([sensible(text) for text in one.texts]).passed for one in tried)


def test_parts_of_one_name_are_not_a_repetition() -> None:
    [rule] = [one for one in behaviours(TEXTS, TOLERANT) if one.name == "repeats no words within a title"]
    assert rule.check(["Pandas datetime.datetime.strftime", "The state-of-the-art of the art"]).passed
    assert not rule.check(["The gradient, the gradient"]).passed


def test_a_passed_test_shows_the_share_that_passes() -> None:
    [rule] = [one for one in behaviours([*TEXTS, "so much for graphs"], TOLERANT) if "first words" in one.name]
    copied = rule.check([" ".join(rule.texts[0].split()[:4]), "Loss", "Data", "Graphs"])
    assert (copied.passed, copied.text) == (True, "3 of 4 pass")


@pytest.mark.parametrize(
    ("fault", "title"),
    [
        ("gives every text a title", ""),
        ("writes no more than 16 words", " ".join(f"w{place}" for place in range(17))),
        ("repeats no words within a title", "the the trees"),
    ],
)
def test_short_texts_are_tested_too(fault: str, title: str) -> None:
    texts = [*(f"so today we talk about trees and about number {place}" for place in range(20)), "so trees"]
    tried = behaviours(texts, TOLERANT)
    wrong = [
        one for one in tried if not one.check([title if text == "so trees" else text for text in one.texts]).passed
    ]
    assert fault in [one.name for one in wrong]


def test_a_few_titles_may_repeat_words() -> None:
    """Such as "The condition number of a matrix with respect to a matrix norm"."""
    texts = [f"so today we talk about number {place}" for place in range(20)]
    [rule] = [one for one in behaviours(texts, TOLERANT.model_copy(update={"repeated": 0.1})) if "repeats" in one.name]
    for repeating, enough in ((2, True), (3, False)):
        titles = ["Norm of a matrix of a matrix"] * repeating + ["Norms"] * (20 - repeating)
        assert rule.check(titles).passed == enough


@pytest.mark.parametrize(
    ("text", "title", "copied"),
    [
        ("inside the heap, we look", "In", False),
        ("inside the heap, we look", "Inside the heap", True),
        ("inside the heap, we look", "Inside the heap: we", True),
        ("deep learning", "Deep learning and more", False),
        ("深度学习是什么", "深度学习", True),
        ("深度学习是什么", "机器学习", False),
        ("что такое граф", "Что", True),
        ("чтобы понять граф", "Что", False),
    ],
)
def test_a_title_is_a_copy_if_it_is_the_first_whole_words_of_its_text(text: str, title: str, copied: bool) -> None:
    [rule] = [one for one in behaviours([text], TOLERANT.model_copy(update={"copied": 0})) if "first words" in one.name]
    assert rule.check([title]).passed != copied


def test_both_of_two_equal_titles_count_as_not_unique() -> None:
    texts = [f"so today we talk about number {place}" for place in range(10)]
    [rule] = [one for one in behaviours(texts, TOLERANT) if "different titles" in one.name]
    alone = [f"Number {place}" for place in range(10)]
    for titles, share in (
        (alone, "1.00"),
        (["Graphs", "graphs", *alone[2:]], "0.80"),
        (["Graphs", "Graphs", "Trees", "Trees", *alone[4:]], "0.60"),  # eight titles in all
        (["Graphs"] * 10, "0.00"),
    ):
        assert rule.check(titles).text == f"share of texts with a unique title: {share}, at least 0.70 required"
    assert not rule.check(["Graphs", "Graphs", "Trees", "Trees", *alone[4:]]).passed


@pytest.mark.parametrize(
    "text", ["[Music] so welcome back", "so [Applause] welcome back", mark_opening("so welcome back")]
)
def test_marks_do_not_hide_copied_first_words(text: str) -> None:
    [rule] = [one for one in behaviours([text], TOLERANT) if "first words" in one.name]
    assert not rule.check(["So welcome back"]).passed


def test_agreement_is_measured_in_any_script() -> None:
    texts = ["сегодня мы говорим о градиентном спуске", "а теперь мы говорим о деревьях и о графах"]
    for rule in behaviours(texts, TOLERANT):
        if "not disturbed" in rule.name:
            twice = ["Градиентный спуск", "Деревья и графы"] * 2
            assert rule.check(twice).text == "ROUGE-1 between the titles: 1.00, at least 0.30 required"
            assert not rule.check(["Градиентный спуск", "Деревья", "Деревья и графы", "Градиенты"]).passed
