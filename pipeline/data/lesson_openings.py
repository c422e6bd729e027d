"""Mark the text that opens a lesson.

Many courses give every opening the same title, such as "Introduction", whatever it is about. No model can learn such a
title from the words of the text, so openings are marked. A lesson with one example has no opening.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

OPENING_MARK = "[lecture begins]"
"""Prefix of an opening, in the style of sound descriptions in transcripts."""

_MIN_LESSONS = 5  # for a usual opening title


def marked_texts(examples: pd.DataFrame) -> list[str]:
    """Return the texts of `examples` as a model reads them: openings have the opening mark."""
    texts = zip(examples["text"], is_opening(examples), strict=True)
    return [mark_opening(text) if opening else text for text, opening in texts]


def is_opening(examples: pd.DataFrame) -> pd.Series:
    """Return for each example whether it opens its lesson; false for all if the column `opens` is missing."""
    return (examples if "opens" in examples else examples.assign(opens=False))["opens"]


def mark_opening(text: str) -> str:
    """Put the opening mark before a text."""
    return f"{OPENING_MARK} {text}"


def has_opening_mark(text: str) -> bool:
    """Return whether a text has the opening mark."""
    return text.startswith(OPENING_MARK)


def remove_opening_mark(text: str) -> str:
    """Remove the opening mark, if the text has it."""
    return text.removeprefix(OPENING_MARK).lstrip() if has_opening_mark(text) else text


def usual_opening_title(examples: pd.DataFrame) -> str:
    """Return the title that more than half of the openings share, or "" if there is no such title.

    Args:
        examples: `title`, and optionally `opens`. With fewer than five openings the result is "".
    """
    titles = examples.loc[is_opening(examples), "title"]
    if len(titles) < _MIN_LESSONS:
        return ""
    title, count = Counter(titles).most_common(1)[0]
    return title if 2 * count > len(titles) else ""
