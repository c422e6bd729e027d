"""Measure how well `lectern chapters` finds topic boundaries, against the workbook's own topics and other methods.

    python benchmarks/chapters.py [WORKBOOK] [--folds 5] [--seeds 20] [--kept FOLDER]

WORKBOOK is an .xlsx file; by default one in $LECTERN_SHARED, else the embedded workbook. Each lesson is divided without
its topics and compared with them, by the scores of `pipeline.chapters.boundary_scores`.

The learned segmenter of the stage `segment` cuts each lesson after training on the lessons of the other folds. Content
vectors are used where nothing was learnt. Depth scores are TextTiling on embeddings (Solbiati et al., 2021:
"Unsupervised Topic Segmentation of Meetings with BERT Embeddings"), on the same windows; their window and pooling are
chosen for the lowest WindowDiff on the lessons of the other folds. Even spacing and random boundaries have as many
chapters as the method above them. FOLDER keeps the vectors, so that an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from workbooks import workbook_or_sample

from pipeline.chapters.boundary_board import SCORES, cross_validate
from pipeline.chapters.boundary_scores import score_boundaries, true_boundaries
from pipeline.chapters.segmentation import DEFAULT_MINUTES, ChaptersSettings, chapter_starts, count_by_length
from pipeline.chapters.segmenter import Segmenter, SegmenterCard
from pipeline.chapters.segmenter_training import (
    Lesson,
    SegmentSettings,
    cut_by_content,
    cut_by_log_odds,
    folds,
    learn_lengths,
    read_lesson,
    train_weights,
)
from pipeline.evaluation.intervals import interval_of_mean
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.transcripts.reading import read_transcripts

WINDOWS = (4, 8, 12, 16, 24)
POOLINGS = {"mean": np.mean, "max": np.max}
CHOSEN_BY = list(SCORES).index("windowdiff")
SEED = 1

Cut = Callable[[Lesson], np.ndarray]
"""Function from a lesson to its boundaries in seconds."""

Count = Callable[[Lesson], int]
"""Function from a lesson to its number of chapters."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx file with lessons")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=20, help="number of random divisions to average")
    parser.add_argument("--kept", type=Path, default=Path(".lectern/chapters"), help="folder for the vectors")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.kept.mkdir(parents=True, exist_ok=True)
    settings = ChaptersSettings.read()
    segment = SegmentSettings.read().model_copy(update={"folds": options.folds})
    workbook = workbook_or_sample(options.workbook, options.kept)
    talks = [talk for talk in read_transcripts(workbook) if talk.lines and len(talk.topics) > 1]
    lessons = [read_lesson(talk, settings, options.kept) for talk in talks]
    print(heading(lessons, settings, segment))
    started = time.process_time()
    known = cross_validate(lessons, segment)
    log_odds = dict(zip(lessons, known.log_odds, strict=True))
    minutes = dict(zip(lessons, known.minutes, strict=True))

    def learned(count: Count) -> Cut:
        return lambda lesson: cut_by_log_odds(lesson, log_odds[lesson], count(lesson), settings.shortest)

    def content(count: Count) -> Cut:
        return lambda lesson: cut_by_content(lesson, count(lesson), settings.shortest)

    def given(lesson: Lesson) -> int:
        return len(true_boundaries(lesson.talk)) + 1

    def learnt(lesson: Lesson) -> int:
        return count_by_length(lesson.talk, minutes[lesson])

    def default(lesson: Lesson) -> int:
        return count_by_length(lesson.talk, DEFAULT_MINUTES)

    depth = {
        f"{window}, {name}": by_depth(given, window, name) for window, name in itertools.product(WINDOWS, POOLINGS)
    }
    print(
        table(
            "as many chapters as the workbook has topics",
            {
                "learned on other lessons": scored(lessons, learned(given)),
                "content vectors": scored(lessons, content(given)),
                "depth scores": chosen(lessons, folds(len(lessons), segment), depth),
                **baselines(lessons, given, options.seeds),
            },
        )
    )
    for title, count in (
        ("number of chapters found, lengths learnt on other lessons", learnt),
        (f"number of chapters found, {DEFAULT_MINUTES:g} minutes per chapter", default),
    ):
        methods = {"learned on other lessons": learned(count), "content vectors": content(count)}
        rows = {name: scored(lessons, cut) for name, cut in methods.items()}
        print(table(title, {**rows, **baselines(lessons, count, options.seeds)}))
    print(f"\nAll of this, without the encoder: {time.process_time() - started:.0f} s of CPU time.")
    print(speed(lessons, settings))


def speed(lessons: Sequence[Lesson], settings: ChaptersSettings) -> str:
    """Time the division of the longest talk, with the encoder loaded."""
    card = SegmenterCard(
        method="learned",
        reason="",
        lengths=learn_lengths(lessons),
        encoder=settings.encoder,
        words=settings.words,
        shortest=settings.shortest,
        lessons=len(lessons),
    )
    segmenter = Segmenter(card, train_weights(lessons))
    talk = max((lesson.talk for lesson in lessons), key=lambda talk: talk.end_seconds)
    chapter_starts(talk, settings, segmenter=segmenter)
    started = time.process_time()
    chapter_starts(talk, settings, segmenter=segmenter)
    seconds = time.process_time() - started
    return f"A talk of {talk.end_seconds / 60:.0f} minutes takes {seconds:.1f} s of CPU time, with the encoder loaded."


def by_depth(count: Count, window: int, pooling: str) -> Cut:
    """Return a method that cuts at the deepest valleys of similarity between neighbouring passages.

    Two cuts are at least a third of the average chapter length apart.
    """

    def cut(lesson: Lesson) -> np.ndarray:
        depth = depths(lesson, window, pooling)
        apart = lesson.talk.end_seconds / count(lesson) / 3
        taken: list[float] = [0.0]
        for gap in np.argsort(-depth):
            if len(taken) == count(lesson):
                break
            if all(abs(lesson.times[gap] - other) >= apart for other in taken):
                taken.append(lesson.times[gap])
        return np.sort(taken[1:])

    return cut


@cache
def depths(lesson: Lesson, window: int, pooling: str) -> np.ndarray:
    """Return the depth of the valley of similarity before each passage; 0 for the first."""
    pool, vectors = POOLINGS[pooling], lesson.vectors
    alike = np.ones(len(vectors))
    for n in range(1, len(vectors)):
        before, after = pool(vectors[max(0, n - window) : n], axis=0), pool(vectors[n : n + window], axis=0)
        alike[n] = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    return np.array([0.0, *(peak(alike[n:0:-1]) + peak(alike[n:]) - 2 * alike[n] for n in range(1, len(alike)))])


def peak(alike: np.ndarray) -> float:
    """Return the highest value that can be reached from the first one without going down."""
    falls = np.flatnonzero(np.diff(alike) < 0)
    return float(alike[falls[0] if falls.size else -1])


def baselines(lessons: Sequence[Lesson], count: Count, seeds: int) -> dict[str, Scored]:
    draws = [scored(lessons, at_random(count, seed)) for seed in range(SEED, SEED + seeds)]
    return {
        "even spacing": scored(lessons, evenly(count)),
        f"random, mean of {seeds} seeds": Scored(np.mean([draw.scores for draw in draws], axis=0), draws[0].counts),
    }


def evenly(count: Count) -> Cut:
    return lambda lesson: np.linspace(0, lesson.talk.end_seconds, count(lesson) + 1)[1:-1]


def at_random(count: Count, seed: int) -> Cut:
    def cut(lesson: Lesson) -> np.ndarray:
        starts = lesson.times[1:-1]
        chance = np.random.default_rng(seed)
        return np.sort(chance.choice(starts, min(count(lesson) - 1, len(starts)), replace=False))

    return cut


@dataclass(frozen=True)
class Scored:
    """Return a row of `SCORES` per lesson, and the number of chapters of each."""

    scores: np.ndarray
    counts: list[int]


def scored(lessons: Sequence[Lesson], cut: Cut) -> Scored:
    cuts = [cut(lesson) for lesson in lessons]
    rows = [score_boundaries(lesson.talk, each) for lesson, each in zip(lessons, cuts, strict=True)]
    return Scored(np.array(rows), [len(each) + 1 for each in cuts])


def chosen(lessons: Sequence[Lesson], folds: Sequence, ways: dict[str, Cut]) -> Scored:
    """Score each lesson by the method that is best on the lessons of the other folds."""
    by_way = {name: scored(lessons, cut) for name, cut in ways.items()}
    scores, counts = np.empty((len(lessons), len(SCORES))), [0] * len(lessons)
    for others, held_out in folds:
        best = min(by_way, key=lambda name: by_way[name].scores[others, CHOSEN_BY].mean())
        logging.info("chosen for %d lessons: %s", len(held_out), best)
        scores[held_out] = by_way[best].scores[held_out]
        for n in held_out:
            counts[n] = by_way[best].counts[n]
    return Scored(scores, counts)


def heading(lessons: Sequence[Lesson], settings: ChaptersSettings, segment: SegmentSettings) -> str:
    topics = sum(len(lesson.talk.topics) for lesson in lessons)
    return (
        f"{describe_machine()}, {torch.get_num_threads()} thread(s). "
        f"{len(lessons)} lessons with {topics} topics, in passages of {settings.words} words; {segment.folds} folds. "
        f"Means over lessons; in brackets {EvaluateSettings.read().confidence:.0%} intervals. {settings.encoder}."
    )


def table(title: str, methods: dict[str, Scored]) -> str:
    evaluation = EvaluateSettings.read()
    lines = ["", f"| {title} | {' | '.join(SCORES.values())} | chapters |", f"|---|{'--:|' * (len(SCORES) + 1)}"]
    for name, method in methods.items():
        lessons = range(len(method.scores))
        means = [interval_of_mean(column, lessons, confidence=evaluation.confidence) for column in method.scores.T]
        cells = [f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in means]
        lines.append(f"| {name} | {' | '.join(cells)} | {sum(method.counts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
