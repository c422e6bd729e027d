"""Titles of a talk that are chosen together."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.evaluation.title_words import support, title_key
from pipeline.registry.fallback_title import Shown
from pipeline.registry.talk_titles import choose_talk_titles

CNN = "Convolutional neural networks"
TITLES = st.sampled_from(
    [CNN, f"{CNN} (CNN)", "Convolutional Neural Network", "CNNs", "Pooling", "Pooling layers", "Padding and strides"]
)
TEXTS = st.sampled_from(
    [
        "a convolutional neural network slides a small filter over the image",
        "pooling layers make the image smaller, so pooling saves work",
        "padding adds zeros around the image before the filter comes",
        "[Music]",
        "",
    ]
)


def shown(*candidates: str) -> Shown:
    return Shown(candidates[0], False, candidates)


CHAPTERS = st.lists(
    st.tuples(st.lists(TITLES, min_size=1, max_size=4).map(lambda titles: shown(*titles)), TEXTS), max_size=8
)


@given(CHAPTERS, st.lists(TITLES, max_size=2))
@example([(shown(CNN), "one two"), (shown(CNN), "one two")], [])
def test_no_two_titles_are_alike_and_each_is_a_candidate_or_a_fallback(
    chapters: list[tuple[Shown, str]], known: list[str]
) -> None:
    given_, texts = [one for one, _ in chapters], [text for _, text in chapters]
    chosen = choose_talk_titles(given_, texts, known)
    assert chosen == choose_talk_titles(given_, texts, known)
    keys = [title_key(each.title) for each in chosen if each.title]
    assert len({*keys, *map(title_key, known)}) == len(keys) + len(set(map(title_key, known)))
    assert all(each.fallback or each.title in one.candidates for each, one in zip(chosen, given_, strict=True))


def test_each_chapter_gets_the_candidate_that_fits_it_better_than_the_others() -> None:
    texts = [
        "a convolutional network slides a filter over the image, and convolutional networks learn the filter",
        "then pooling makes it smaller, and pooling in a convolutional network saves work",
        "next is padding, and padding in a network adds zeros around the image",
    ]
    given_ = [
        shown(CNN, "Padding"),
        shown(f"{CNN} (CNNs)", "Pooling in a network", "Filters of images"),
        shown("Convolutional Neural Network", "The padding of images"),
    ]
    assert [each.title for each in choose_talk_titles(given_, texts)] == [
        CNN, "Pooling in a network", "The padding of images",
    ]  # fmt: skip


def test_an_opening_keeps_its_usual_title_and_a_known_title_is_not_repeated() -> None:
    texts = ["[lecture begins] hello and pooling", "pooling saves work", "more of padding"]
    given_ = [shown("Intro", "Pooling"), shown("Intro", "Work"), shown("Padding", "More")]
    chosen = choose_talk_titles(given_, texts, ["Paddings"])
    assert [(each.title, each.fallback) for each in chosen] == [("Intro", False), ("Work", False), ("More", False)]


def test_without_a_title_of_its_own_a_chapter_gets_a_keyphrase_as_a_fallback() -> None:
    texts = ["so the filter slides over the image", "so the pooling layer makes it smaller"]
    first, second = choose_talk_titles([shown(CNN)] * 2, texts)
    assert {first.fallback, second.fallback} == {False, True}
    fallback, text = (second.title, texts[1]) if second.fallback else (first.title, texts[0])
    assert fallback in text
    assert choose_talk_titles([Shown("", True)], ["[Music]"]) == [Shown("", True)]


def test_titles_are_alike_up_to_capitals_endings_and_abbreviations() -> None:
    assert len({title_key(each) for each in (CNN, f"{CNN} (CNNs)", "convolutional neural network [cnn]")}) == 1
    assert title_key("Graphs (part 1)") != title_key("Graphs (part 2)")
    assert title_key("Graphs (basics)") != title_key("Graphs")
    assert title_key("深層学習") != title_key("深層")


def test_the_support_of_a_title_is_the_share_of_its_words_in_the_text() -> None:
    assert support("The Training of Networks", "we train a network", {"the", "of"}) == 1
    assert support("Training a rocket", "we train it", {"a"}) == 0.5
    assert support("Why?", "we train it", {"why"}) == 1
