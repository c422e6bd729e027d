"""Train a segmenter on lessons whose topics are known, and cut lessons with one that has not seen them.

The regression learns where the topics of other lessons begin. Its target for a passage is not only 0 or 1: it falls
with the distance to the nearest topic start, because the starts that people enter are off by seconds. Every lesson has
the same weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from pipeline.chapters.boundary_features import PassageFeatures, describe_passages
from pipeline.chapters.boundary_scores import true_boundaries
from pipeline.chapters.passage_vectors import kept_vectors
from pipeline.chapters.segmentation import ChaptersSettings, Passages, best_cuts, likely_cuts, split_passages
from pipeline.chapters.segmenter import BoundaryWeights, ChapterLengths
from pipeline.chapters.sentence_starts import sentence_starts
from pipeline.data.word_count import space_out
from pipeline.paths import PASSAGE_VECTORS
from pipeline.settings import Section
from pipeline.transcripts.transcript import Transcript

_OFF_BY = 10.0  # seconds; deviation of a topic start that a person entered
_SHARED_BY = 0.4  # share of the lessons that a cue must occur in
_CUE_SCALE = 4.0  # size of a cue's feature, next to measures of deviation 1
_STRENGTH = 0.001  # scikit-learn's C: the inverse of the penalty's weight
_LONGER = 1.25  # an uncertain boundary costs more than it brings, so chapters are longer than people's
_DRAWN_BY = 2  # lessons of average length that each course counts in addition
_LEAST_TARGET = 1e-3  # smaller targets count as 0, which halves the rows


class SegmentSettings(Section):
    """The section `segment` of params.yaml."""

    section: ClassVar[str] = "segment"

    lessons: int = Field(ge=2, description="fewest lessons to learn from")
    folds: int = Field(ge=2, description="folds of the cross-validation, by lesson")
    seed: int = Field(default=1, description="of the folds and of random boundaries")


@dataclass(frozen=True, eq=False)
class Lesson:
    """A lesson with known topics, as the regression sees it.

    passages: its passages of `words` words.
    times: start of each passage, and end of the last one, in seconds.
    """

    talk: Transcript
    passages: Passages
    words: int
    times: np.ndarray
    vectors: np.ndarray
    features: PassageFeatures

    @property
    def targets(self) -> np.ndarray:
        """Target of each passage: 1 if a topic starts with it, falling to 0 with the distance to the nearest start."""
        apart = np.abs(np.subtract.outer(self.times[:-1], true_boundaries(self.talk))).min(axis=1)
        return np.exp(-(apart**2) / (2 * _OFF_BY**2))


LogOdds = Sequence[np.ndarray]
"""For each of several lessons, the log-odds of its passages."""


def read_lesson(talk: Transcript, settings: ChaptersSettings, kept: Path = PASSAGE_VECTORS) -> Lesson:
    """Split a lesson into passages and compute their vectors and features.

    Args:
        kept: folder that keeps the vectors.

    Raises:
        Rejected: the encoder cannot be found or opened.
    """
    passages = split_passages(talk, settings.words)
    times = np.append(passages.starts, talk.end_seconds)
    vectors = kept_vectors([space_out(text) for text in passages.texts], settings.encoder, kept)
    return Lesson(talk, passages, settings.words, times, vectors, describe_passages(talk, passages, vectors, times))


def train_weights(lessons: Sequence[Lesson]) -> BoundaryWeights:
    """Train the regression on `lessons`, at least one of which has two passages."""
    counts = Counter(cue for lesson in lessons for cue in frozenset().union(*lesson.features.cues))
    cues = sorted(cue for cue, count in counts.items() if count >= _SHARED_BY * len(lessons))
    column = {cue: n for n, cue in enumerate(cues)}
    inputs = sparse.vstack([_inputs(lesson, column) for lesson in lessons]).tocsr()
    targets = np.concatenate([lesson.targets[1:] for lesson in lessons])
    sizes = np.array([len(lesson.targets) - 1 for lesson in lessons])
    weights = np.repeat(sizes.mean() / np.maximum(sizes, 1), sizes)
    # A target between 0 and 1 is a row of each class, weighted by the target.
    positive = np.flatnonzero(targets > _LEAST_TARGET)
    fitted = LogisticRegression(C=_STRENGTH, max_iter=300).fit(
        sparse.vstack([inputs, inputs[positive]]),
        np.repeat([0, 1], [len(targets), len(positive)]),
        sample_weight=np.concatenate([(1 - targets) * weights, (targets * weights)[positive]]),
    )
    scales = np.repeat([1.0, _CUE_SCALE], [fitted.coef_.shape[1] - len(cues), len(cues)])
    return BoundaryWeights(cues, fitted.coef_[0] * scales, float(fitted.intercept_[0]))


def _inputs(lesson: Lesson, column: dict[str, int]) -> sparse.csr_matrix:
    """Return the measures and the cues of a lesson's passages, without the first, which always begins a chapter."""
    cues = [[column[cue] for cue in sorted(said) if cue in column] for said in lesson.features.cues[1:]]
    ends = np.cumsum([0, *map(len, cues)])
    places = np.array([place for said in cues for place in said], dtype=int)
    spoken = sparse.csr_matrix((np.full(len(places), _CUE_SCALE), places, ends), shape=(len(cues), len(column)))
    return sparse.hstack([sparse.csr_matrix(lesson.features.measures[1:]), spoken]).tocsr()


def held_out(lessons: Sequence[Lesson], settings: SegmentSettings) -> LogOdds:
    """Return each lesson's log-odds by a regression that is trained on the lessons of the other folds."""
    found: dict[int, np.ndarray] = {}
    for others, own in folds(len(lessons), settings):
        weights = train_weights([lessons[n] for n in others])
        found |= {n: weights.log_odds(lessons[n].features) for n in own}
    return [found[n] for n in range(len(lessons))]


def folds(count: int, settings: SegmentSettings) -> list[tuple[list[int], list[int]]]:
    """Return the positions of the training and of the held-out lessons of each fold."""
    split = KFold(min(settings.folds, count), shuffle=True, random_state=settings.seed).split(range(count))
    return [(others.tolist(), own.tolist()) for others, own in split]


def learn_lengths(lessons: Sequence[Lesson]) -> ChapterLengths:
    """Learn how long chapters are, on average and in each course.

    Averages are geometric. The average of a course with few lessons is drawn towards that of all lessons.
    """
    logs: dict[str, list[float]] = {}
    for lesson in lessons:
        length = lesson.talk.end_seconds / 60 / len(lesson.talk.topics)
        logs.setdefault(lesson.talk.course_title, []).append(float(np.log(length)))
    overall = float(np.mean([value for values in logs.values() for value in values]))

    def minutes(log: float) -> float:
        return round(_LONGER * float(np.exp(log)), 2)

    drawn = {course: (sum(own) + _DRAWN_BY * overall) / (len(own) + _DRAWN_BY) for course, own in logs.items()}
    return ChapterLengths(minutes=minutes(overall), by_course={course: minutes(log) for course, log in drawn.items()})


def cut_by_log_odds(lesson: Lesson, log_odds: np.ndarray, count: int, shortest: float) -> np.ndarray:
    """Return the boundaries of a lesson in seconds, found with log-odds."""
    return _starts(lesson, likely_cuts(lesson.vectors, lesson.times, count, shortest, log_odds), shortest)


def cut_by_content(lesson: Lesson, count: int, shortest: float) -> np.ndarray:
    """Return the boundaries of a lesson in seconds, found by content vectors only."""
    return _starts(lesson, best_cuts(lesson.vectors, lesson.times, count, shortest), shortest)


def _starts(lesson: Lesson, cuts: Sequence[int], shortest: float) -> np.ndarray:
    """Return the starts of chapters in seconds, moved to the starts of sentences as in `chapter_starts`."""
    firsts = [lesson.passages.firsts[cut] for cut in cuts]
    return np.array(sentence_starts(lesson.talk, firsts, lesson.words // 2, shortest))
