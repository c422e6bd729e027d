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


SQL = [
    "Reading Data from a File",
    "The FROM Clause",
    "What IS NULL Means",
    "SELECT and WHERE",
    "GROUP BY",
    "Why Databases Use SQL",
    "How an IT Team Works with LSTM Models",
] * 2
GERMAN = [
    "Grundlagen der Thermodynamik",
    "Lineare Algebra und Geometrie",
    "Zweiter Hauptsatz",
    "Einführung in die Statistik",
    "Wie funktioniert ein Motor?",
    "Arbeit und innere Energie",
]
COURSES = {
    "English, title case": [*TITLED, "Using the apply Function", "iPhone Apps", "What Is It?"],
    "English, sentence case": [
        *(*PLAINLY, "How and why layers learn features slowly"),
        *("The Model View", "pandas basics", "Lists: The basics", "SQL JOIN"),
    ],
    "German": GERMAN,
    "Portuguese, title case": ["Introdução à Álgebra Linear", "Métodos de Integração por Partes", "Séries de Taylor"]
    * 5,
    "Portuguese, sentence case": ["Introdução à álgebra linear", "Métodos de integração por partes", "Séries de Taylor"]
    * 5,
    "French": ["L'algèbre linéaire en pratique", "Les lois de Newton", "Pourquoi l'entropie augmente avec le temps"]
    * 5,
    "Greek": ["Εισαγωγή στους λόγους", "Ο νόμος του Νεύτωνα", "Τα βασικά της στατιστικής και της άλγεβρας"] * 5,
    "capitals": ["INTRODUCTION TO SQL", "REST API", "THE END"] * 5,
    "SQL": SQL,
}


@given(st.data())
@pytest.mark.parametrize("course", COURSES)
def test_a_title_of_the_course_stays_as_it_is(course: str, data: st.DataObject) -> None:
    titles = data.draw(st.lists(st.sampled_from(COURSES[course]), min_size=1, max_size=30))
    style = learn_style(titles)
    for title in titles:
        for text in ("", title, title.lower(), " ".join(titles).lower(), f"and so {title.lower()} we say"):
            assert clean_up_title(title, style, text) == title


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("Einführung in die Grundlagen", "einführung in die grundlagen"),
        ("Grundlagen der linearen Algebra", "Heute geht es um die Grundlagen der linearen Algebra."),
    ],
)
def test_german_titles_keep_the_capitals_of_the_model(written: str, text: str) -> None:
    assert clean_up_title(written, learn_style(GERMAN * 3), text) == written


@pytest.mark.parametrize("text", ["", "so why is it that we read from a file", "So it is. From here, we read IS NULL."])
@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("Reading data from a file", "Reading Data from a File"),
        ("What is a transaction", "What is a Transaction"),
        ("why it matters", "Why It Matters"),
        ("sql with lstm", "SQL with LSTM"),
    ],
)
def test_a_keyword_in_the_titles_does_not_change_common_words(written: str, title: str, text: str) -> None:
    assert clean_up_title(written, learn_style(SQL), text) == title


def test_an_abbreviation_is_told_from_a_keyword_by_the_texts() -> None:
    titles = ["The REST API", "An API of Models", "Reading FROM Tables", *["Where Tables Come From"] * 30]
    texts = ["an api from us", "our api is from here", *["tables come from here"] * 31]
    style = learn_style([*TITLED, *titles], texts=["no"] * len(TITLED) + texts)
    assert clean_up_title("data from an api", style, "data comes from an api") == "Data from an API"
    assert clean_up_title("data from a GPU", style, "Data from a GPU.") == "Data from a GPU"
