"""Measure a segmenter against other ways to find boundaries, and decide whether it is used.

The decision rests on the lessons of the training and validation splits, by cross-validation: a validation split of a
few lessons tells nothing about boundaries. The test split has no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.chapters.boundary_scores import BoundaryScores, score_boundaries, true_boundaries
from pipeline.chapters.segmentation import DEFAULT_MINUTES, ChaptersSettings, count_by_length
from pipeline.chapters.segmenter import ChapterLengths, Method, Segmenter, SegmenterCard
from pipeline.chapters.segmenter_training import (
    Lesson,
    LogOdds,
    SegmentSettings,
    cut_by_content,
    cut_by_log_odds,
    folds,
    held_out,
    learn_lengths,
    train_weights,
)
from pipeline.evaluation.comparison import Comparison, compare, fewest_units
from pipeline.evaluation.intervals import Interval, count_noun, interval_of_mean
from pipeline.json_records import Record, read_record
from pipeline.paths import BOUNDARIES

SCORES = {"pk": "Pk", "windowdiff": "WindowDiff", "f1_10s": "F1 at 10 s", "f1_30s": "F1 at 30 s"}
"""The scores by field of `BoundaryScores`, with their names for people. Pk and WindowDiff are better if lower."""

LEARNED: Final = "learned"
CONTENT: Final = "content vectors"
EVEN, RANDOM = "even spacing", "random"
_DRAWS = 20  # random divisions to average
_SHOWN = 3  # lessons in pictures
_CURVE = (0.25, 0.5, 0.75, 1.0)  # shares of the training lessons


class BoundaryRow(Record):
    """The scores of one method on two sets of lessons; empty without lessons."""

    method: str
    number_given: bool  # whether the number of chapters is that of the lesson's topics
    validation: dict[str, Interval]  # by cross-validation on the lessons of the training and validation splits
    test: dict[str, Interval]


class PicturedLesson(Record):
    """A test lesson's boundaries in seconds, as people and as the segmenter set them."""

    name: str
    end_seconds: float
    true: list[float]
    found: list[float]


class BoundaryBoard(Record):
    """The leaderboard of boundaries: reports/boundaries.json."""

    method: Method  # that the version will use
    reason: str
    confidence: float
    validation_lessons: int
    test_lessons: int
    lengths: ChapterLengths
    difference: Comparison | None  # learned minus content vectors, in `agreement`, by cross-validation
    rows: list[BoundaryRow]
    curve: dict[int, dict[str, float]]  # mean scores by cross-validation, by number of training lessons
    pictures: list[PicturedLesson]
    run_id: str = ""

    @property
    def in_use(self) -> BoundaryRow:
        """The row of the method that the version uses."""
        return next(row for row in self.rows if row.method == self.method and not row.number_given)

    @property
    def score_names(self) -> list[str]:
        """The names of the scores for people, in the order of the rows' scores."""
        return [*SCORES.values()]

    @property
    def summary(self) -> str:
        """A sentence on the method that the version uses and its scores on the test lessons."""
        scores, test = "", self.in_use.test
        if test:
            shown = [f"{SCORES[name]} {test[name].mean:.3f}" for name in ("windowdiff", "f1_30s")]
            scores = f" {' and '.join(shown)} on {count_noun(self.test_lessons, 'test lesson')}."
        by = "a learned segmenter" if self.method == LEARNED else "content vectors"
        return f"Chapters are found by {by}: {self.reason}.{scores}"


def read_board(path: Path = BOUNDARIES) -> BoundaryBoard:
    """Read the leaderboard that the stage `segment` wrote.

    Raises:
        Rejected: the file is missing or damaged.
    """
    return read_record(BoundaryBoard, path, "segment")


def agreement(score: BoundaryScores) -> float:
    """Return how well boundaries agree with the topics: the mean of F1 at 30 s and 1 - WindowDiff, from 0 to 1."""
    return (score.f1_30s + 1 - score.windowdiff) / 2


@dataclass(frozen=True)
class Measured:
    """A set of lessons with everything that the methods need to cut them.

    log_odds: by a regression that has not seen the lesson.
    minutes: average length of a chapter of each lesson, learnt on other lessons.
    """

    lessons: Sequence[Lesson]
    log_odds: LogOdds | None
    minutes: Sequence[float]


def cross_validate(lessons: Sequence[Lesson], settings: SegmentSettings) -> Measured:
    """Prepare lessons so that each is cut by what the lessons of other folds teach."""
    minutes = [0.0] * len(lessons)
    for others, own in folds(len(lessons), settings):
        lengths = learn_lengths([lessons[n] for n in others])
        for n in own:
            minutes[n] = lengths.of(lessons[n].talk.course_title)
    return Measured(lessons, held_out(lessons, settings), minutes)


def build_segmenter(
    lessons: Sequence[Lesson],
    test: Sequence[Lesson],
    chapters: ChaptersSettings,
    settings: SegmentSettings,
    *,
    unlearnable: str,
    confidence: float,
) -> tuple[Segmenter, BoundaryBoard]:
    """Train a segmenter, measure it and decide whether it is used.

    Args:
        lessons: the lessons to learn from; empty if nothing can be learnt.
        test: the test lessons.
        unlearnable: why there are no lessons to learn from.
    """
    validated = difference = None
    if not lessons:
        lengths, weights = ChapterLengths(minutes=DEFAULT_MINUTES), None
        reason = unlearnable
    else:
        lengths, weights = learn_lengths(lessons), train_weights(lessons)
        validated = cross_validate(lessons, settings)
        difference = _difference(validated, chapters.shortest, 1 - confidence)
        reason = _reason(difference)
    method: Method = LEARNED if difference and difference.finding == "better" else CONTENT
    log_odds = [weights.log_odds(lesson.features) for lesson in test] if weights else None
    tested = Measured(test, log_odds, [lengths.of(lesson.talk.course_title) for lesson in test])
    card = SegmenterCard(
        method=method,
        reason=reason,
        lengths=lengths,
        encoder=chapters.encoder,
        words=chapters.words,
        shortest=chapters.shortest,
        lessons=len(lessons),
        cues=weights.cues if weights and method == LEARNED else [],
    )
    board = BoundaryBoard(
        method=method,
        reason=reason,
        confidence=confidence,
        validation_lessons=len(lessons),
        test_lessons=len(test),
        lengths=lengths,
        difference=difference,
        rows=_rows(validated, tested, chapters.shortest, settings.seed, confidence),
        curve=_learning_curve(lessons, chapters.shortest, settings) if lessons else {},
        pictures=_pictures(tested, method, chapters.shortest),
    )
    return Segmenter(card, weights if method == LEARNED else None), board


def too_few(lessons: int, settings: SegmentSettings) -> str:
    """Return the reason not to learn from a number of lessons."""
    return f"{count_noun(lessons, 'lesson')} with topics to learn from, and {settings.lessons} are needed"


def _difference(measured: Measured, shortest: float, level: float) -> Comparison:
    cuts = _methods(measured, shortest, seed=0, given=False)
    learned, content = (
        [agreement(score) for score in _scores(measured.lessons, cuts[name])] for name in (LEARNED, CONTENT)
    )
    return compare(learned, content, range(len(learned)), level=level)


def _reason(difference: Comparison) -> str:
    lessons = f"{count_noun(difference.units, 'lesson')} by cross-validation"
    match difference.finding:
        case "better":
            lead = f"{difference.mean:+.3f}, at least {difference.low:+.3f}"
            return f"it agrees with the topics better than content vectors do ({lead}, on {lessons})"
        case "too few":
            return f"{lessons} cannot tell whether learning helps; {fewest_units(difference.level)} are needed"
        case _:
            lead = f"{difference.mean:+.3f} in agreement with the topics, on {lessons}"
            return f"a learned segmenter does not beat them with confidence ({lead})"


def _rows(
    validated: Measured | None, tested: Measured, shortest: float, seed: int, confidence: float
) -> list[BoundaryRow]:
    rows = []
    for given in (False, True):
        on_validation = _methods(validated, shortest, seed, given=given) if validated else {}
        on_test = _methods(tested, shortest, seed, given=given)
        for method in on_test:
            validation = _intervals(validated.lessons, on_validation[method], confidence) if validated else {}
            test = _intervals(tested.lessons, on_test[method], confidence)
            rows.append(BoundaryRow(method=method, number_given=given, validation=validation, test=test))
    return rows


Cuts = Sequence[Sequence[np.ndarray]]
"""For each lesson its boundaries in seconds: one division, or several random ones."""


def _methods(measured: Measured, shortest: float, seed: int, *, given: bool) -> dict[str, Cuts]:
    """Cut all lessons by each method."""
    lessons = measured.lessons
    counts = [
        len(true_boundaries(lesson.talk)) + 1 if given else count_by_length(lesson.talk, minutes)
        for lesson, minutes in zip(lessons, measured.minutes, strict=True)
    ]
    counted = list(zip(lessons, counts, strict=True))
    cuts: dict[str, Cuts] = {}
    if measured.log_odds is not None:
        cuts[LEARNED] = [
            [cut_by_log_odds(lesson, log_odds, count, shortest)]
            for (lesson, count), log_odds in zip(counted, measured.log_odds, strict=True)
        ]
    cuts[CONTENT] = [[cut_by_content(lesson, count, shortest)] for lesson, count in counted]
    cuts[EVEN] = [[np.linspace(0, lesson.talk.end_seconds, count + 1)[1:-1]] for lesson, count in counted]
    cuts[RANDOM] = [[_at_random(lesson, count, seed + draw) for draw in range(_DRAWS)] for lesson, count in counted]
    return cuts


def _at_random(lesson: Lesson, count: int, seed: int) -> np.ndarray:
    starts = lesson.times[1:-1]
    return np.sort(np.random.default_rng(seed).choice(starts, min(count - 1, len(starts)), replace=False))


def _scores(lessons: Sequence[Lesson], cuts: Cuts) -> list[BoundaryScores]:
    """Return the mean scores of each lesson over its divisions."""
    return [
        BoundaryScores(*np.mean([score_boundaries(lesson.talk, each) for each in divisions], axis=0).tolist())
        for lesson, divisions in zip(lessons, cuts, strict=True)
    ]


def _intervals(lessons: Sequence[Lesson], cuts: Cuts, confidence: float) -> dict[str, Interval]:
    if not lessons:
        return {}
    columns = zip(*_scores(lessons, cuts), strict=True)
    units = range(len(lessons))
    return {
        name: interval_of_mean(list(column), units, confidence=confidence)
        for name, column in zip(SCORES, columns, strict=True)
    }


def _learning_curve(
    lessons: Sequence[Lesson], shortest: float, settings: SegmentSettings
) -> dict[int, dict[str, float]]:
    """Return mean scores with the number of chapters given, by the number of lessons that a regression learns from."""
    curve = {}
    for share in _CURVE:
        scores, used = [], 0
        for others, own in folds(len(lessons), settings):
            used = max(2, round(share * len(others)))
            weights = train_weights([lessons[n] for n in others[:: max(1, len(others) // used)][:used]])
            for lesson in (lessons[n] for n in own):
                count = len(true_boundaries(lesson.talk)) + 1
                cuts = cut_by_log_odds(lesson, weights.log_odds(lesson.features), count, shortest)
                scores.append(score_boundaries(lesson.talk, cuts))
        curve[used] = dict(zip(SCORES, np.mean(scores, axis=0).round(4).tolist(), strict=True))
    return curve


def _pictures(tested: Measured, method: Method, shortest: float) -> list[PicturedLesson]:
    cuts = _methods(tested, shortest, seed=0, given=False)
    return [
        PicturedLesson(
            name=lesson.talk.name,
            end_seconds=lesson.talk.end_seconds,
            true=true_boundaries(lesson.talk).tolist(),
            found=divisions[0].tolist(),
        )
        for lesson, divisions in list(zip(tested.lessons, cuts[method], strict=True))[:_SHOWN]
    ]
