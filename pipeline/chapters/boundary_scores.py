"""Score boundaries against a lesson's own topics.

Pk (Beeferman, Berger & Lafferty, 1999: "Statistical Models for Text Segmentation") and WindowDiff (Pevzner & Hearst,
2002: "A Critique and Improvement of an Evaluation Metric for Text Segmentation") count over lines, in a window of half
the lesson's average topic; lower is better. F1 counts each boundary that lies within so many seconds of another one
once; higher is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.transcripts.transcript import Transcript


class BoundaryScores(NamedTuple):
    """The scores of one lesson, each from 0 to 1."""

    pk: float
    windowdiff: float
    f1_10s: float
    f1_30s: float


def score_boundaries(talk: Transcript, found: Sequence[float] | np.ndarray) -> BoundaryScores:
    """Score `found`, the starts of chapters in seconds without the first, on a lesson that has topics."""
    spoken = np.array([line.seconds for line in talk.lines])
    boundaries = true_boundaries(talk)
    true, ours = (_marks(spoken, np.asarray(seconds, dtype=float)) for seconds in (boundaries, found))
    window = max(2, round(len(true) / (true.sum() + 1) / 2))
    pk = windowdiff = 0.0
    if window <= len(true):
        in_true, in_ours = (np.convolve(marks, np.ones(window, dtype=int), "valid") for marks in (true, ours))
        pk = float(np.mean((in_true > 0) != (in_ours > 0)))
        windowdiff = float(np.mean(in_true != in_ours))
    return BoundaryScores(pk, windowdiff, _f1(boundaries, found, 10), _f1(boundaries, found, 30))


def true_boundaries(talk: Transcript) -> np.ndarray:
    """Return the starts of the lesson's topics in seconds, without the first."""
    return np.array([topic.seconds for topic in talk.topics[1:]])


def _marks(spoken: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """Return a number per line: 1 if a chapter starts with it, except for the first."""
    begins = np.zeros(len(spoken) + 1, dtype=int)
    begins[np.searchsorted(spoken, boundaries)] = 1
    begins[0] = 0
    return begins[:-1]


def _f1(true: np.ndarray, found: Sequence[float] | np.ndarray, tolerance: float) -> float:
    """Return the F1 of boundaries, matched one to one in the order of time."""
    matched = n = 0
    for boundary in true:
        while n < len(found) and found[n] < boundary - tolerance:
            n += 1
        if n < len(found) and found[n] <= boundary + tolerance:
            matched, n = matched + 1, n + 1
    return 2 * matched / max(1, len(true) + len(found))
