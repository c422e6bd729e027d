"""What opens a lesson. Many courses call every opening alike, whatever it is about, so that no text tells its title.

A lesson that is one example has no opening.
"""

from __future__ import annotations

from collections import Counter

import pandas as pd

MARK = "[lecture begins]"
"""Ahead of a text: it opens its lesson. A mark as transcripts have them for what nobody says."""

_FEWEST_LESSONS = 5  # that show how a course calls its openings


def asked(examples: pd.DataFrame) -> list[str]:
    """The texts of `examples` as a title is asked for them: what opens a lesson is marked."""
    texts = zip(examples["text"], of_openings(examples), strict=True)
    return [marked(text) if opening else text for text, opening in texts]


def of_openings(examples: pd.DataFrame) -> pd.Series:
    """Which of `examples` open their lesson: none of those that were written before that was told."""
    return examples["opens"] if "opens" in examples else pd.Series(False, index=examples.index)


def marked(text: str) -> str:
    return f"{MARK} {text}"


def opens(text: str) -> bool:
    """Whether it is marked."""
    return text.startswith(MARK)


def spoken(text: str) -> str:
    """`text` without the mark."""
    return text.removeprefix(MARK).lstrip() if opens(text) else text


def usual_opening(examples: pd.DataFrame) -> str:
    """The title that more than half of the lessons have for what opens them; "" if there is none, or too few lessons.

    Args:
        examples: `title`, and `opens` if that is known.
    """
    titles = examples.loc[of_openings(examples), "title"]
    if len(titles) < _FEWEST_LESSONS:
        return ""
    title, times = Counter(titles).most_common(1)[0]
    return title if 2 * times > len(titles) else ""
