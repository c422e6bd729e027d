"""A talk: lines with times, and the topics that are known of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_WORDS_A_SECOND = 2.5  # as lectures are spoken; how long a last line lasts whose end nobody wrote down


class Line(NamedTuple):
    """What is said from `seconds` on; its words stand one space apart, and there is one at least."""

    seconds: float
    text: str


class Topic(NamedTuple):
    """A known start of a chapter; `title` is empty where nobody has given one."""

    seconds: float
    title: str


@dataclass(frozen=True)
class Talk:
    """One lesson, whose lines stand in the order of time. Where there are none, there are topics.

    end_seconds: after the start of the last line, or of the last topic where there is none.
    topics: those known already, in the order of time.
    """

    course_title: str
    lesson_num: str
    lines: list[Line]
    end_seconds: float
    topics: list[Topic] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The lesson, for a message."""
        return f"lesson {self.lesson_num} of {self.course_title}"

    @property
    def begins(self) -> float:
        """When its first line is said; after everything where none is."""
        return self.lines[0].seconds if self.lines else math.inf


class Spoken(NamedTuple):
    """A line as a file holds it; `end_seconds` is None where the file does not say."""

    seconds: float
    end_seconds: float | None
    text: str
    speaker: str = ""


def end_of(lines: Sequence[Line], said: float = 0.0) -> float:
    """When a talk of `lines` ends, which is `said` if that is after the start of its last line."""
    last = lines[-1]
    return said if said > last.seconds else last.seconds + len(last.text.split()) / _WORDS_A_SECOND
