"""The gate's rule for whole lessons: a version must not write worse chapters with titles than the champion."""

from __future__ import annotations

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from pipeline.chapters.known_lessons import lesson_names
from pipeline.chapters.segmenter import Segmenter
from pipeline.evaluation.comparison import Comparison, compare, fewest_units
from pipeline.evaluation.intervals import count_noun
from pipeline.evaluation.joint_board import SCORE
from pipeline.models.title_cleanup import PLAIN
from pipeline.registry.boundary_rule import unseen_talks
from pipeline.registry.fallback_title import choose_titles
from pipeline.registry.joint_scores import CutLessons
from pipeline.registry.serving_trial import try_version
from pipeline.registry.version_segmenter import read_segmenter
from pipeline.transcripts.transcript import Transcript


def compare_whole_lessons(
    version: ModelVersion, champion: ModelVersion, test: pd.DataFrame, unseen: np.ndarray, *, level: float
) -> tuple[str, Comparison | None]:
    """Compare chapters and titles of two versions, on the test lessons of which neither has seen an example.

    Each version cuts the lessons with its own segmenter and titles its own chapters, in a process of its own.

    Args:
        test: the test split.
        unseen: mask of the examples that neither model has seen: (examples,), booleans.

    Returns:
        A description, and the comparison; None if there is nothing to compare.

    Raises:
        Rejected: a version or its segmenter does not work.
        TemporaryFailure: a version cannot be tried now.
    """
    segmenters = [read_segmenter(each.name, str(each.version)) for each in (version, champion)]
    seen = lesson_names(test[~unseen])
    talks = [talk for talk in unseen_talks(test, segmenters) if (talk.course_title, talk.lesson_num) not in seen]
    on = count_noun(len(talks), "lesson")
    if len(talks) < fewest_units(level):  # before any title is written
        return f"too few lessons to tell: {on}, and {fewest_units(level)} are needed", None
    own, other = (
        _scores(each, talks, segmenter) for each, segmenter in zip((version, champion), segmenters, strict=True)
    )
    found = compare(own, other, range(len(talks)), level=level)
    score = f"{SCORE} {sum(own) / len(own):.3f}"
    return f"{score}, difference {found.mean:+.3f}, at most {found.high:+.3f} on {on}", found


def _scores(version: ModelVersion, talks: list[Transcript], segmenter: Segmenter | None) -> list[float]:
    lessons = CutLessons(talks, segmenter)
    titled = choose_titles(lessons.texts, try_version(version, lessons.texts).candidates, PLAIN)
    return lessons.scores(dict(zip(lessons.texts, titled, strict=True)))
