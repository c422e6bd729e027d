from __future__ import annotations

from pipeline.models.title_cleanup import PLAIN
from pipeline.registry.fallback_title import shown


def test_a_keyphrase_is_looked_for_in_no_more_of_a_text_than_a_talk_has() -> None:
    beginning = "so now we talk about hashing. " * 4000
    rest = "Then the Zebra Crossing came. " * 8000
    (whole,) = shown([beginning + rest], [[]], PLAIN)
    assert (whole.title, whole.fallback) == ("talk about hashing", True)
