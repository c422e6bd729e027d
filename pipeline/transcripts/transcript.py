"""The transcript of one lesson: timed lines, and the topics that are already known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.data.word_count import count_words

_WORDS_PER_SECOND = 2.5  # typical of lectures; estimates the end of a last line that has no end time


class Line(NamedTuple):
    """A line of a transcript, spoken from `seconds` on. It has at least one word; single spaces separate words."""

    seconds: float
    text: str
    speaker: str = ""


class Topic(NamedTuple):
    """The known start of a chapter. `title` is empty if the topic is untitled."""

    seconds: float
    title: str


@dataclass(frozen=True)
class Transcript:
    """The lines and known topics of one lesson, both in order of time. A transcript without lines has topics.

    end_seconds: end of the lesson, after the start of its last line or topic.
    notes: what was changed or looks wrong in the file that it was read from, for the user.
    """

    course_title: str
    lesson_num: str
    lines: list[Line]
    end_seconds: float
    topics: list[Topic] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the lesson in messages."""
        return f"lesson {self.lesson_num} of {self.course_title}"

    @property
    def first_line_seconds(self) -> float:
        """Start of the first line; infinity if there are no lines."""
        return self.lines[0].seconds if self.lines else math.inf


class RawLine(NamedTuple):
    """A line as a file holds it. `end_seconds` is None if the file gives no end."""

    seconds: float
    end_seconds: float | None
    text: str
    speaker: str = ""


def end_of_transcript(lines: Sequence[Line], end_in_file: float = 0.0) -> float:
    """Return when a transcript ends, in seconds.

    Args:
        lines: the lines, in order of time; at least one.
        end_in_file: the latest end that the file gives. If the last line starts later, its length is estimated.
    """
    last = lines[-1]
    if end_in_file > last.seconds:
        return end_in_file
    return last.seconds + count_words(last.text) / _WORDS_PER_SECOND
