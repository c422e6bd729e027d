"""What a title may never be, whatever a model has written; and what a course's titles decide."""

from __future__ import annotations

import html
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.models.title_cleanup import LONGEST, TitleStyle, learn_style, tidy, usable

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
def test_a_tidy_title_is_tidy(written: str, style: TitleStyle, text: str) -> None:
    title = tidy(written, style, text)
    assert tidy(title, style, text) == title


@given(WRITTEN, STYLES)
def test_a_title_is_one_line_of_words_within_its_length(written: str, style: TitleStyle) -> None:
    title = tidy(written, style)
    assert title == " ".join(title.split())
    assert not title or any(map(str.isalnum, title))
    assert len(title.split()) <= style.words
    assert len(title) <= LONGEST


@given(WRITTEN, STYLES)
def test_no_title_holds_half_a_pair_a_tag_or_what_cannot_be_printed(written: str, style: TitleStyle) -> None:
    title = tidy(written, style)
    assert title.count('"') % 2 == 0
    for opening, closing in ("()", "[]", "{}", "«»"):
        assert title.count(opening) == title.count(closing)
    if "„" not in title:  # which “ closes
        assert title.count("“") == title.count("”")
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn") for char in title)
    for markup in ("<b>", "</b>", "<pad>", "`", "\ufffd", "[music]", "&amp;"):
        assert markup not in title.lower()


@given(WRITTEN, STYLES, WRITTEN)
def test_no_word_is_invented(written: str, style: TitleStyle, text: str) -> None:
    given_, before = written, None
    while given_ != before:
        given_, before = html.unescape(given_), given_
    letters = iter(char for char in given_.casefold() if char.isalnum())
    assert all(char in letters for char in tidy(written, style, text).casefold() if char.isalnum())


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
def test_titles_as_models_write_them(written: str, title: str | None) -> None:
    if title is None:
        assert tidy(written, TitleStyle(words=10)) == "how to find the best of all the learning rates"
        assert tidy(written, TitleStyle(words=5)) == "how to find the best"
        assert tidy(written, TitleStyle(words=4)) == "how to find"
    else:
        assert tidy(written) == title


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
def test_capitals_are_those_of_the_courses_titles_and_of_the_text(titles: list[str], title: str) -> None:
    text = "so today we look at Bayes and, with him, the rule"
    assert tidy("an lstm With the Rule of bayes", learn_style(titles), text) == title


def test_a_title_in_capitals_alone_gets_the_courses() -> None:
    assert tidy("WELCOME TO THE RULE OF BAYES", learn_style(PLAINLY)) == "Welcome to the rule of Bayes"
    assert tidy("welcome to pytorch", learn_style(PLAINLY), "we use PyTorch") == "Welcome to PyTorch"
    assert tidy("WELCOME TO THE LSTM", learn_style(TITLED)) == "Welcome to the LSTM"


def test_a_course_may_have_longer_titles_than_others() -> None:
    assert learn_style(["one two three"]).words < learn_style([" ".join("abcdefghijklm")]).words


@pytest.mark.parametrize(
    "title",
    ["", "?", "the the the", "Deep learning and deep learning and deep learning", "graphgraphgraphgraphgraph"],
)
def test_what_goes_round_in_circles_is_of_no_use(title: str) -> None:
    assert not usable(title)


@pytest.mark.parametrize(
    "title", ["Why", "1000000 rows", "Models of models", "Q & A", "What is what and why it is what"]
)
def test_what_reads_as_a_title_is_of_use(title: str) -> None:
    assert usable(title)
