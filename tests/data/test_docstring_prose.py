from textwrap import dedent

from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.docstring_prose import as_plain_words, extract_prose, split_sections

NUMPY_STYLE = dedent("""
    The Huber loss has the advantage of not being moved by `outliers`, see :func:`~scipy.special.huber` [1]_.

    .. versionadded:: 0.18

    Here is how it is used::

        model = Huber(epsilon=1.5).fit(X, y)

    Parameters
    ----------
    epsilon : float, default=1.35
        The smaller this value is, the more robust the model becomes.
    max_iter : int
        The most iterations that the solver should ever run for.

    Notes
    -----
    The loss must be at least :math:`x \\in S` for every sample of the data.

    ====  ====
    a     b
    ====  ====

    Examples
    --------
    >>> this line of code must never be said aloud
    this output of the code must never be said aloud
    """)

GOOGLE_STYLE = dedent("""
    Args:
        weight (Tensor, optional): a manual rescaling that is given to each class
        size (tuple[int, (int)]): how large the window of the average is

    Shape:
        - this shape is for the eye and not for the ear
    """)


def test_a_role_becomes_the_name_it_shows():
    assert as_plain_words("see :func:`~scipy.special.huber` and :ref:`the guide <guide>`") == "see huber and the guide"


def test_a_comparison_becomes_words():
    assert as_plain_words("``n >= 4``") == "n is at least 4"


def test_a_description_loses_its_markup():
    expected = "The Huber loss has the advantage of not being moved by outliers, see huber"
    assert extract_prose(NUMPY_STYLE)[0].startswith(expected)


def test_notes_come_before_parameters():
    starts = [paragraph.split()[0] for paragraph in extract_prose(NUMPY_STYLE)]
    assert starts == ["The", "Here", "The", "epsilon:", "max_iter:"]


def test_code_and_examples_are_skipped():
    assert not any("code" in paragraph or "fit(" in paragraph for paragraph in extract_prose(NUMPY_STYLE))


def test_a_parameter_keeps_its_name_and_loses_its_type():
    assert extract_prose(GOOGLE_STYLE)[0] == "weight: a manual rescaling that is given to each class"


def test_shapes_are_skipped():
    assert not any("shape is for the eye" in paragraph for paragraph in extract_prose(GOOGLE_STYLE))


def test_headings_split_a_text_into_sections():
    text = "before\n\nFirst part\n==========\n\nits text\n"
    assert [(heading, " ".join(lines).split()) for heading, lines in split_sections(text)] == [
        ("", ["before"]),
        ("First part", ["its", "text"]),
    ]


@given(st.text(alphabet=st.sampled_from("ab :.`*\\{}[]_->=\n"), max_size=200))
def test_prose_has_single_spaces(text):
    assert all(paragraph == " ".join(paragraph.split()) for paragraph in extract_prose(text))
