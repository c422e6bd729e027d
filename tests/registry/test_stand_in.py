from __future__ import annotations

from pipeline.models.tidy import PLAIN
from pipeline.registry.stand_in import shown


def test_a_keyphrase_is_looked_for_in_no_more_of_a_text_than_a_talk_has() -> None:
    beginning = "so now we talk about hashing. " * 4000
    rest = "Then the Zebra Crossing came. " * 8000
    (whole,) = shown([beginning + rest], [[]], PLAIN)
    assert (whole.title, whole.fallback) == ("talk about hashing", True)
