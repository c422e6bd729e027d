"""Score the chapters and titles of a lesson together.

SODA_c of Fujita, Hirao, Kamigaito, Okumura and Nagata, 2020: "SODA: Story Oriented Dense Video Captioning Evaluation
Framework". Their similarity of captions is METEOR. Here it is ROUGE-1 with stemming, as for single titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.unicode_rouge import rouge1


class TitledSpan(NamedTuple):
    """A part of a lesson with its title. Times are in seconds."""

    start: float
    end: float
    title: str


def soda_c(found: Sequence[TitledSpan], true: Sequence[TitledSpan]) -> float:
    """Return the score from 0 to 1; 1 if all times and titles are equal.

    A pair of a found and a true chapter is worth the overlap of their times, as intersection over union, times the
    similarity of their titles. Of all ways to pair chapters in the order of time, the most valuable one counts. The
    score is the F-measure of its value as a share of the found and of the true chapters.

    Args:
        found: chapters in the order of time.
        true: topics in the order of time.
    """
    value = _overlaps(found, true) * _similarities(found, true)
    best = np.zeros((len(found) + 1, len(true) + 1))
    for i, j in product(range(len(found)), range(len(true))):
        best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], best[i, j] + value[i, j])
    return float(2 * best[-1, -1] / max(1, len(found) + len(true)))


def _overlaps(found: Sequence[TitledSpan], true: Sequence[TitledSpan]) -> np.ndarray:
    """Return the intersection over union of all pairs: (found, true)."""
    ours, theirs = (np.array([span[:2] for span in spans], dtype=float).reshape(-1, 2) for spans in (found, true))
    common = np.minimum.outer(ours[:, 1], theirs[:, 1]) - np.maximum.outer(ours[:, 0], theirs[:, 0])
    together = np.add.outer(ours[:, 1] - ours[:, 0], theirs[:, 1] - theirs[:, 0]) - np.maximum(common, 0)
    return np.maximum(common, 0) / together


def _similarities(found: Sequence[TitledSpan], true: Sequence[TitledSpan]) -> np.ndarray:
    """Return the similarity of the titles of all pairs: (found, true)."""
    pairs = [(ours.title, theirs.title) for ours, theirs in product(found, true)]
    ours, theirs = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(rouge1(ours, theirs, stem=True)).reshape(len(found), len(true))
