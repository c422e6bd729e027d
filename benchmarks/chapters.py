"""Measure how well `lectern chapters` finds topic boundaries, against the workbook's own topics and other methods.

    python benchmarks/chapters.py [WORKBOOK] [--folds 5] [--seeds 20] [--kept FOLDER]

WORKBOOK is an .xlsx file; by default one in $LECTERN_SHARED, else the embedded workbook. Each lesson is divided without
its topics and compared with them. Pk (Beeferman, Berger & Lafferty, 1999: "Statistical Models for Text Segmentation")
and WindowDiff (Pevzner & Hearst, 2002: "A Critique and Improvement of an Evaluation Metric for Text Segmentation")
count over lines, in a window of half the lesson's average topic; lower is better. F1 counts each boundary that lies
within so many seconds of another one once; higher is better.

Content vectors are the method of `lectern chapters`; their boundaries move to the starts of sentences. Depth scores are
TextTiling on embeddings (Solbiati et al., 2021: "Unsupervised Topic Segmentation of Meetings with BERT Embeddings"), on
the same windows. Even spacing and random boundaries have as many chapters as content vectors. Parameters (average
length; window and pooling of depth scores) are chosen for the lowest WindowDiff on the lessons of the other folds.
FOLDER keeps the vectors, so that an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import logging
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import torch
import transformers
from nltk.metrics.segmentation import pk, windowdiff
from sklearn.model_selection import KFold
from workbooks import workbook_or_sample

from pipeline.chapters.embedding import embed
from pipeline.chapters.segmentation import ChaptersSettings, best_cuts, split_passages
from pipeline.chapters.sentence_starts import sentence_starts
from pipeline.evaluation.intervals import interval_of_mean
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.transcript import Transcript

MINUTES = (3, 4, 5, 6, 7, 8)
WINDOWS = (4, 8, 12, 16, 24)
POOLINGS = {"mean": np.mean, "max": np.max}
SECONDS = (10, 30)
SCORES = ("Pk", "WindowDiff", *(f"F1 at {seconds} s" for seconds in SECONDS))
CHOSEN_BY = SCORES.index("WindowDiff")
SEED = 1


@dataclass(frozen=True, eq=False)
class Lesson:
    """A lesson to divide: its passages' first lines, their starts with the end of the last one, and their vectors."""

    talk: Transcript
    firsts: list[int]
    times: np.ndarray
    vectors: np.ndarray

    @property
    def spoken(self) -> np.ndarray:
        """Return the times of the lines in seconds."""
        return np.array([line.seconds for line in self.talk.lines])

    @property
    def boundaries(self) -> np.ndarray:
        """Return the start times of the lesson's own topics in seconds, without the first."""
        return np.array([topic.seconds for topic in self.talk.topics[1:]])


Cut = Callable[[Lesson], np.ndarray]
"""Function from a lesson to its boundaries in seconds."""


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
    workbook = workbook_or_sample(options.workbook, options.kept)
    talks = [talk for talk in read_transcripts(workbook) if talk.lines and len(talk.topics) > 1]
    lessons = [read(talk, settings, options.kept) for talk in talks]
    folds = list(KFold(min(options.folds, len(lessons)), shuffle=True, random_state=SEED).split(lessons))
    print(heading(lessons, settings, len(folds)))
    print(known_count(lessons, folds, settings, options.seeds))
    print(chosen_length(lessons, folds, settings, options.seeds))
    print(shipped_length(lessons, settings, options.seeds))


def read(talk: Transcript, settings: ChaptersSettings, kept: Path) -> Lesson:
    passages = split_passages(talk, settings.words)
    digest = hashlib.sha256("\n".join([settings.encoder, *passages.texts]).encode()).hexdigest()
    path = kept / f"{digest[:32]}.npy"
    if not path.exists():
        np.save(path, embed(passages.texts, settings.encoder))
    return Lesson(talk, passages.firsts, np.append(passages.starts, talk.end_seconds), np.load(path))


def known_count(lessons: Sequence[Lesson], folds: Sequence, settings: ChaptersSettings, seeds: int) -> str:
    """Score the places of the boundaries when their number is given."""

    def count(lesson: Lesson) -> int:
        return len(lesson.boundaries) + 1

    depth = {
        f"{window}, {name}": by_depth(count, window, name) for window, name in itertools.product(WINDOWS, POOLINGS)
    }
    methods = {
        "content vectors": scored(lessons, by_content(count, settings)),
        "depth scores": chosen(lessons, folds, depth),
        **baselines(lessons, count, seeds),
    }
    return as_markdown("as many chapters as the workbook has topics", methods)


def chosen_length(lessons: Sequence[Lesson], folds: Sequence, settings: ChaptersSettings, seeds: int) -> str:
    """Score places and number of the boundaries when the average length is chosen on other lessons."""
    counts = {minutes: by_length(minutes) for minutes in MINUTES}
    content = {str(minutes): by_content(count, settings) for minutes, count in counts.items()}
    depth = {
        f"{minutes}, {window}, {name}": by_depth(count, window, name)
        for (minutes, count), window, name in itertools.product(counts.items(), WINDOWS, POOLINGS)
    }
    ours = chosen(lessons, folds, content)
    as_many = dict(zip((lesson.talk.name for lesson in lessons), ours.counts, strict=True))
    methods = {
        "content vectors": ours,
        "depth scores": chosen(lessons, folds, depth),
        **baselines(lessons, lambda lesson: as_many[lesson.talk.name], seeds),
    }
    return as_markdown(f"a mean length of {MINUTES[0]} to {MINUTES[-1]} minutes, chosen on other lessons", methods)


def shipped_length(lessons: Sequence[Lesson], settings: ChaptersSettings, seeds: int) -> str:
    """Divide lessons as `lectern chapters` does by default."""
    count = by_length(settings.minutes)
    methods = {"content vectors": scored(lessons, by_content(count, settings)), **baselines(lessons, count, seeds)}
    return as_markdown(f"`chapters.minutes` of params.yaml: {settings.minutes:g}", methods)


def by_length(minutes: float) -> Callable[[Lesson], int]:
    return lambda lesson: max(3, round(lesson.talk.end_seconds / 60 / minutes))


def by_content(count: Callable[[Lesson], int], settings: ChaptersSettings) -> Cut:
    def cut(lesson: Lesson) -> np.ndarray:
        cuts = best_cuts(lesson.vectors, lesson.times, count(lesson), settings.shortest)
        firsts = [lesson.firsts[cut] for cut in cuts]
        return np.array(sentence_starts(lesson.talk, firsts, settings.words // 2, settings.shortest))

    return cut


def by_depth(count: Callable[[Lesson], int], window: int, pooling: str) -> Cut:
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


def baselines(lessons: Sequence[Lesson], count: Callable[[Lesson], int], seeds: int) -> dict[str, Scored]:
    draws = [scored(lessons, at_random(count, seed)) for seed in range(SEED, SEED + seeds)]
    return {
        "even spacing": scored(lessons, evenly(count)),
        f"random, mean of {seeds} seeds": Scored(np.mean([draw.scores for draw in draws], axis=0), draws[0].counts),
    }


def evenly(count: Callable[[Lesson], int]) -> Cut:
    return lambda lesson: np.linspace(0, lesson.talk.end_seconds, count(lesson) + 1)[1:-1]


def at_random(count: Callable[[Lesson], int], seed: int) -> Cut:
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
    rows = [score(lesson, cuts) for lesson, cuts in zip(lessons, cuts, strict=True)]
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


def score(lesson: Lesson, cuts: np.ndarray) -> list[float]:
    """Return the `SCORES` of boundaries at `cuts`, in seconds."""
    true, ours = (marks(lesson.spoken, seconds) for seconds in (lesson.boundaries, cuts))
    window = max(2, round(len(true) / (true.count("1") + 1) / 2))
    matched = [f1(lesson.boundaries, cuts, tolerance) for tolerance in SECONDS]
    return [pk(true, ours, window), windowdiff(true, ours, window), *matched]


def marks(spoken: np.ndarray, boundaries: np.ndarray) -> str:
    """Return a character per line: 1 if a chapter starts with it, except for the first."""
    begins = np.zeros(len(spoken) + 1, dtype=int)
    begins[np.searchsorted(spoken, boundaries)] = 1
    return "".join(map(str, [0, *begins[1:-1]]))


def f1(true: np.ndarray, ours: np.ndarray, tolerance: float) -> float:
    """Return the F1 of boundaries, matched one to one in the order of time."""
    matched = n = 0
    for boundary in true:
        while n < len(ours) and ours[n] < boundary - tolerance:
            n += 1
        if n < len(ours) and ours[n] <= boundary + tolerance:
            matched, n = matched + 1, n + 1
    return 2 * matched / (len(true) + len(ours))


def heading(lessons: Sequence[Lesson], settings: ChaptersSettings, folds: int) -> str:
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} thread(s)"
    topics = sum(len(lesson.talk.topics) for lesson in lessons)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}, transformers {transformers.__version__}. "
        f"{len(lessons)} lessons with {topics} topics, in passages of {settings.words} words; {folds} folds. Means "
        f"over lessons; in brackets {EvaluateSettings.read().confidence:.0%} intervals. {settings.encoder}."
    )


def as_markdown(title: str, methods: dict[str, Scored]) -> str:
    evaluation = EvaluateSettings.read()
    lines = ["", f"| {title} | {' | '.join(SCORES)} | chapters |", f"|---|{'--:|' * (len(SCORES) + 1)}"]
    for name, method in methods.items():
        lessons = range(len(method.scores))
        means = [interval_of_mean(column, lessons, confidence=evaluation.confidence) for column in method.scores.T]
        cells = [f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in means]
        lines.append(f"| {name} | {' | '.join(cells)} | {sum(method.counts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
