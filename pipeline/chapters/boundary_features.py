"""Describe each passage of a transcript by what tells whether a chapter starts with it.

The measures compare the vectors before and after the start of a passage, in windows of several widths: cosine, as in
TextTiling (Hearst, 1997), and the gain in length of content vectors by a cut. Others say how near the start is to the
cuts of content vectors, how long the pause before it is, and whether the speaker changes. The cues are the words and
word pairs of the passage, and of the end of the previous one: "okay so let's", "next question".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.chapters.segmentation import Passages, best_cuts
from pipeline.data.word_count import space_out
from pipeline.transcripts.transcript import Transcript

MEASURES = 17
_WINDOWS = (1, 2, 4, 8, 16, 32)  # passages
_CUT_MINUTES = (3, 4, 6)
_SHORTEST = 10.0  # seconds between two of these cuts
_NEAR = 1.5  # passages
_TAIL_WORDS = 8
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_EPSILON = 1e-9


@dataclass(frozen=True, eq=False)
class PassageFeatures:
    """The features of the passages of one transcript.

    measures: (passages, MEASURES), each with mean 0 and deviation 1 over the transcript; 0 for the first passage.
    cues: words and pairs of words of each passage; those that end the previous passage start with "…".
    """

    measures: np.ndarray
    cues: list[frozenset[str]]


def describe_passages(
    transcript: Transcript, passages: Passages, vectors: np.ndarray, times: np.ndarray
) -> PassageFeatures:
    """Compute the features of all passages.

    Args:
        vectors: one vector per passage, (passages, width).
        times: start of each passage, and end of the last one, in seconds.
    """
    columns = [*_similarities(vectors), *_nearness(vectors, times), *_turns(transcript, passages)]
    measures = np.stack(columns, axis=1)
    rest = measures[1:]
    if len(rest):
        measures = (measures - rest.mean(axis=0)) / (rest.std(axis=0) + 1e-6)
    measures[0] = 0
    return PassageFeatures(measures, _cues(passages.texts))


def _similarities(vectors: np.ndarray) -> list[np.ndarray]:
    """Compare the sums of the centred vectors before and after each start, for each window."""
    centred = vectors - vectors.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), _EPSILON)
    sums = np.concatenate([np.zeros((1, centred.shape[1])), np.cumsum(centred, axis=0, dtype=np.float64)])
    places = np.arange(len(vectors))
    gains, cosines = [], []
    for width in _WINDOWS:
        before = sums[places] - sums[np.maximum(places - width, 0)]
        after = sums[np.minimum(places + width, len(vectors))] - sums[places]
        lengths = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
        gains.append(lengths[0] + lengths[1] - np.linalg.norm(before + after, axis=1))
        cosines.append((before * after).sum(axis=1) / np.maximum(lengths[0] * lengths[1], _EPSILON))
    return gains + cosines


def _nearness(vectors: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
    """Return how near each passage is to a cut of content vectors, at several average lengths."""
    near = []
    for minutes in _CUT_MINUTES:
        cuts = best_cuts(vectors, times, max(3, round(times[-1] / 60 / minutes)), _SHORTEST)
        apart = np.abs(np.subtract.outer(np.arange(len(vectors)), np.array(cuts if cuts else [np.inf]))).min(axis=1)
        near.append(np.exp(-apart / _NEAR))
    return near


def _turns(transcript: Transcript, passages: Passages) -> list[np.ndarray]:
    """Return the time between the starts of the two lines at each boundary, and whether the speaker changes."""
    lines = transcript.lines
    pairs = [(lines[max(first - 1, 0)], lines[first]) for first in passages.firsts]
    pauses = [after.seconds - before.seconds for before, after in pairs]
    changes = [before.speaker != after.speaker for before, after in pairs]
    return [np.array(pauses, dtype=float), np.array(changes, dtype=float)]


def _cues(texts: list[str]) -> list[frozenset[str]]:
    words = [_WORD.findall(space_out(text).lower()) for text in texts]
    cues = []
    for before, own in zip([[], *words[:-1]], words, strict=True):
        cues.append(frozenset([*_grams(own), *(f"…{gram}" for gram in _grams(before[-_TAIL_WORDS:]))]))
    return cues


def _grams(words: list[str]) -> list[str]:
    return [*words, *(f"{first} {second}" for first, second in pairwise(words))]
