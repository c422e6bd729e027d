"""The gate's rule for boundaries: a version must not find chapters worse than the champion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from pipeline.chapters.boundary_board import agreement
from pipeline.chapters.boundary_scores import score_boundaries
from pipeline.chapters.divide_transcript import divide_as_served
from pipeline.chapters.known_lessons import known_lessons, lesson_names
from pipeline.chapters.segmenter import Segmenter
from pipeline.evaluation.comparison import Comparison, compare, fewest_units
from pipeline.evaluation.intervals import count_noun
from pipeline.models.seen_examples import are_among
from pipeline.paths import LINES, TOPICS
from pipeline.registry.version_segmenter import read_segmenter
from pipeline.transcripts.transcript import Transcript


def compare_boundaries(
    version: ModelVersion, champion: ModelVersion, test: pd.DataFrame, *, level: float
) -> Iterator[tuple[str, Comparison | None]]:
    """Compare the chapter boundaries of two versions, by the score `agreement`, on test lessons unseen by both.

    Yields:
        A description and the comparison, None if there is nothing to compare. Nothing if neither version has a
        segmenter, or both have the same one.

    Raises:
        Rejected: a segmenter is damaged.
        TemporaryFailure: the store of a version's files does not answer.
    """
    tags = [each.tags.get("segmenter.md5") for each in (version, champion)]
    if tags[0] == tags[1]:
        return
    segmenters = [read_segmenter(each.name, str(each.version)) for each in (version, champion)]
    talks = unseen_talks(test, segmenters)
    if not talks:
        yield "no test lesson with topics that neither has learnt from", None
        return
    own, other = (
        [agreement(score_boundaries(talk, _boundaries(talk, segmenter))) for talk in talks] for segmenter in segmenters
    )
    found = compare(own, other, range(len(talks)), level=level)
    on = count_noun(found.units, "lesson")
    if found.finding == "too few":
        yield f"too few lessons to tell: {on}, and {fewest_units(level)} are needed", found
    else:
        score = f"agreement with the topics {sum(own) / len(own):.3f}"
        yield f"{score}, difference {found.mean:+.3f}, at most {found.high:+.3f} on {on}", found


def _boundaries(talk: Transcript, segmenter: Segmenter | None) -> list[float]:
    return [chapter.start_seconds for chapter in divide_as_served(talk, segmenter).chapters[1:]]


def unseen_talks(test: pd.DataFrame, segmenters: Sequence[Segmenter | None]) -> list[Transcript]:
    """Return the test lessons with at least two topics of which no segmenter has learnt an example."""
    if not (TOPICS.exists() and LINES.exists()):
        return []
    seen = [hash_ for each in segmenters if each and each.seen for hash_ in each.seen.train]
    return known_lessons(lesson_names(test) - lesson_names(test[are_among(test, seen)]))
