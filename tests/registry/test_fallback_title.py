from __future__ import annotations

import pytest

from pipeline.models.title_cleanup import PLAIN
from pipeline.registry.fallback_title import Shown, choose_titles


def test_a_keyphrase_comes_from_the_part_of_a_text_that_a_lesson_would_fill() -> None:
    beginning = "so now we talk about hashing. " * 4000
    rest = "Then the Zebra Crossing came. " * 8000
    (whole,) = choose_titles([beginning + rest], [[]], PLAIN)
    assert (whole.title, whole.fallback) == ("talk about hashing", True)


@pytest.mark.parametrize("text", ["[Music]", "♪♪♪", "...", "[Applaus]"])
def test_a_text_in_which_nothing_is_said_gets_no_invented_title(text: str) -> None:
    invented = ["The meaning of life"]
    assert choose_titles([text], [invented], PLAIN) == [Shown("", True, invented)]
