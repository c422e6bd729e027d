"""Properties of every cleaned-up title, and the influence of a course's titles."""

from __future__ import annotations

import html
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.models.title_cleanup import (
    LONGEST,
    TitleStyle,
    clean_up_title,
    has_spoken_words,
    is_usable_title,
    learn_style,
    shorten_title,
)

_PIECES = st.sampled_from(
    [
        *"\"'“”«„()[]*`#_-4.,ßİıǆβ \n\t\x00\u200b\ufffd",
        *("**", "# ", "- ", "<b>", "</b>", "<pad>", "&amp;", "&lt;", "[Music]", "Title:", "..."),
        *("the", "of", "gradient", "Descent", "LSTM", "don't", "f(x)", "C++", "über", "深層", "e.g."),
    ]
)
WRITTEN = st.one_of(
    st.text(max_size=60),
    st.lists(_PIECES, max_size=30).map("".join),
    st.lists(_PIECES, max_size=30).map(" ".join),
)
STYLES = st.builds(
    TitleStyle,
    capitals=st.sampled_from(["title", "sentence", "keep"]),
    spellings=st.sampled_from([{}, {"lstm": "LSTM", "gradient": "GraDient"}]),
    words=st.integers(1, 20),
)


@given(WRITTEN, STYLES, WRITTEN)
@example("0 a×A", TitleStyle(capitals="title", words=2), "")
def test_cleaning_up_twice_changes_nothing(written: str, style: TitleStyle, text: str) -> None:
    title = clean_up_title(written, style, text)
    assert clean_up_title(title, style, text) == title


@given(WRITTEN, STYLES)
def test_a_title_is_one_line_of_words_within_its_length(written: str, style: TitleStyle) -> None:
    title = clean_up_title(written, style)
    assert title == " ".join(title.split())
    assert not title or any(map(str.isalnum, title))
    assert len(title.split()) <= style.words
    assert len(title) <= LONGEST


@given(WRITTEN, STYLES)
def test_a_title_has_no_unpaired_quote_tag_or_control_character(written: str, style: TitleStyle) -> None:
    title = clean_up_title(written, style)
    assert title.count('"') % 2 == 0
    for opening, closing in ("()", "[]", "{}", "«»"):
        assert title.count(opening) == title.count(closing)
    if "„" not in title:  # which “ closes
        assert title.count("“") == title.count("”")
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn") for char in title)
    for markup in ("<b>", "</b>", "<pad>", "`", "\ufffd", "[music]", "&amp;"):
        assert markup not in title.lower()


@given(WRITTEN, STYLES, WRITTEN)
def test_the_clean_up_adds_no_letters(written: str, style: TitleStyle, text: str) -> None:
    given_, before = written, None
    while given_ != before:
        given_, before = html.unescape(given_), given_
    letters = iter(char for char in given_.casefold() if char.isalnum())
    assert all(char in letters for char in clean_up_title(written, style, text).casefold() if char.isalnum())


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ('"The Limits of Machine Learning"', "The Limits of Machine Learning"),
        ("**Title:** Gradient *descent*.", "Gradient descent"),
        ("<b>What</b> &amp; why<|im_end|>", "What & why"),
        ("[Music] Introduction", "Introduction"),
        ('He said "hello" and "bye', 'He said "hello" and bye'),
        ("'Gradient descent", "Gradient descent"),
        ("'90s rock and students' choice", "'90s rock and students' choice"),
        ("\n```\nReal title\n```", "Real title"),
        ("U.S. policy, etc.", "U.S. policy, etc."),
        ("item_tfms=Resize(480, method='squish')", "item_tfms=Resize(480, method='squish')"),
        ("List<String> in C++", "List<String> in C++"),
        (".NET and C#", ".NET and C#"),
        ("When do you use softmax and when not to?", "When do you use softmax and when not to?"),
        ("how to find the best of all the learning rates in the end for a model of the world", None),
        ("[Music", ""),
        ('"?!"', ""),
    ],
)
def test_typical_outputs_of_models_are_cleaned_up(written: str, title: str | None) -> None:
    if title is None:
        assert clean_up_title(written, TitleStyle(words=10)) == "how to find the best of all the learning rates"
        assert clean_up_title(written, TitleStyle(words=5)) == "how to find the best"
        assert clean_up_title(written, TitleStyle(words=4)) == "how to find"
    else:
        assert clean_up_title(written) == title


TITLED = ["How To Measure When Things Change", "Pros and Cons of LSTM Architectures", "Model Performance Degrades"] * 2
PLAINLY = [
    "Training the model and making a prediction",
    "Where to find documentation about Bayes",
    "What is pooling",
] * 2


@pytest.mark.parametrize(
    ("titles", "title"),
    [
        (TITLED, "An LSTM With the Rule of Bayes"),
        (PLAINLY, "An lstm with the rule of Bayes"),
        (["Why"], "an lstm With the Rule of bayes"),
    ],
)
def test_capitals_follow_the_courses_titles_and_the_text(titles: list[str], title: str) -> None:
    text = "so today we look at Bayes and, with him, the rule"
    assert clean_up_title("an lstm With the Rule of bayes", learn_style(titles), text) == title


def test_a_title_in_capitals_gets_the_courses_style() -> None:
    assert clean_up_title("WELCOME TO THE RULE OF BAYES", learn_style(PLAINLY)) == "Welcome to the rule of Bayes"
    assert clean_up_title("welcome to pytorch", learn_style(PLAINLY), "we use PyTorch") == "Welcome to PyTorch"
    assert clean_up_title("WELCOME TO THE LSTM", learn_style(TITLED)) == "Welcome to the LSTM"


def test_the_word_limit_follows_the_courses_titles() -> None:
    assert learn_style(["one two three"]).words < learn_style([" ".join("abcdefghijklm")]).words


@pytest.mark.parametrize(
    "title",
    [
        *("", "?", "the the the", "Deep learning and deep learning and deep learning", "graphgraphgraphgraphgraph"),
        *("DESCRIPTION", "Title", "Chapter 3", "Transcript", "The art of … ||=", "Loops {}", "What ~~ ##"),
    ],
)
def test_empty_repetitive_and_meaningless_titles_are_unusable(title: str) -> None:
    assert not is_usable_title(title)


@pytest.mark.parametrize(
    "title",
    [
        *("Why", "1000000 rows", "Models of models", "Q & A", "What is what and why it is what", "Really?!"),
        *("Why C++", "The title of a plot", "Title pages", "Topics of the week", 'He said "so"', "Sums (in brackets)"),
        "नानी ने कहानी सुनाई",
    ],
)
def test_short_and_unusual_titles_are_usable(title: str) -> None:
    assert is_usable_title(title)


@given(st.text(max_size=140), st.integers(10, 120))
def test_a_shortened_title_keeps_whole_words_within_the_limit(title: str, longest: int) -> None:
    short = shorten_title(title, longest)
    assert len(short) <= longest
    assert short == title or len(title) > longest


@pytest.mark.parametrize(
    ("title", "short"),
    [
        ("Choosing the size of each step", "Choosing the size"),
        ('Choosing "the size of" steps', "Choosing the size"),
        ("Unübertrefflichkeitsannahme", "Unübertrefflichkeit"),
        ("Choosing, and stepping", "Choosing"),
    ],
)
def test_a_long_title_ends_with_a_word_that_can_end_it(title: str, short: str) -> None:
    assert shorten_title(title, 19) == short


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("ΕΙΣΑΓΩΓΗ ΣΤΟΥΣ ΛΟΓΟΥΣ", "Εισαγωγη στους λογους"),
        ("რა არის ღრუბელი", "რა არის ღრუბელი"),
        ("ǆungla je velika", "ǅungla je velika"),
    ],
)
def test_capitals_of_other_alphabets_are_those_of_a_title(written: str, title: str) -> None:
    assert clean_up_title(written, learn_style(PLAINLY)) == title


@pytest.mark.parametrize("text", ["[Music]", "♪♪♪", "...", "[Applaus] ♪ [音楽]"])
def test_sounds_are_no_spoken_words(text: str) -> None:
    assert not has_spoken_words(text)
    assert has_spoken_words(f"{text} and then")
