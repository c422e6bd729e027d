"""The joint score of a version, chapters and titles of whole lessons together, next to simpler ways to write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.evaluation.comparison import Comparison, compare, format_interval
from pipeline.evaluation.intervals import Interval, count_noun, interval_of_mean
from pipeline.json_records import Record, read_record
from pipeline.paths import JOINT

SCORE = "SODA_c"


class JointRow(Record):
    """The joint score of one way to write chapters with titles."""

    chapters: str  # how they are found
    titles: str  # who writes them
    score: Interval
    lead: Comparison | None = None  # of the version over this row


class JointBoard(Record):
    """Joint scores on the test lessons: reports/joint.json."""

    model: str
    confidence: float
    lessons: int
    rows: list[JointRow]  # the version's first; none without test lessons

    @property
    def summary(self) -> str:
        """A sentence on the version's score and those of simpler ways."""
        if not self.rows:
            return "No test lesson has two topics or more, so whole lessons are not measured."
        scores = [f"{format_interval(row.score)} with {row.chapters} and titles by {row.titles}" for row in self.rows]
        return f"Whole lessons, chapters and titles together ({SCORE}): {'; '.join(scores)}, on {self._lessons}."

    @property
    def _lessons(self) -> str:
        return count_noun(self.lessons, "test lesson")


Way = tuple[str, str]
"""The method that finds chapters, and the writer of their titles."""


def build_joint_board(model: str, scores: Mapping[Way, Sequence[float]], confidence: float) -> JointBoard:
    """Compute intervals over lessons, and the lead of the version over each other way.

    Args:
        scores: for each way a score per lesson; the version's way first.
    """
    own = next(iter(scores.values()))
    lessons = range(len(own))
    rows = [
        JointRow(
            chapters=chapters,
            titles=titles,
            score=interval_of_mean(each, lessons, confidence=confidence),
            lead=None if each is own else compare(own, each, lessons, level=1 - confidence),
        )
        for (chapters, titles), each in scores.items()
        if lessons
    ]
    return JointBoard(model=model, confidence=confidence, lessons=len(lessons), rows=rows)


def read_joint_board(path: Path = JOINT) -> JointBoard:
    """Read the joint scores that the stage `joint` wrote.

    Raises:
        Rejected: the file is missing or damaged.
    """
    return read_record(JointBoard, path, "joint")
