"""A segmenter: what a registered version finds chapters with.

A learned segmenter is a logistic regression that gives the log-odds of a chapter starting with a passage. The most
coherent chapters are then those with the longest content vectors and the largest log-odds at their starts. A segmenter
that has not learned finds chapters by content vectors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pipeline.chapters.boundary_features import MEASURES, PassageFeatures
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.errors import Rejected
from pipeline.files import write_text
from pipeline.models.seen_examples import SeenExamples
from pipeline.settings import Settings

CARD = "segmenter.json"
WEIGHTS = "segmenter.safetensors"

Method = Literal["learned", "content vectors"]


class ChapterLengths(Settings):
    """Average lengths of a chapter in minutes, unless the user gives one."""

    minutes: float
    by_course: dict[str, float] = {}

    def of(self, course: str) -> float:
        """Return the average length for a talk of that course."""
        return self.by_course.get(course, self.minutes)


class SegmenterCard(Settings):
    """`segmenter.json`: everything about a segmenter except its weights."""

    method: Method
    reason: str  # why this method is used
    lengths: ChapterLengths
    encoder: str  # source of the sentence encoder
    words: int  # window size in words
    shortest: float  # minimum length of a chapter in seconds
    lessons: int  # number of lessons that it was trained on
    cues: list[str] = []  # in the order of their weights, after the measures

    def chapters_settings(self, minutes: float | None = None) -> ChaptersSettings:
        """Return the settings that this segmenter was measured with, and a user's average length of a chapter."""
        return ChaptersSettings(encoder=self.encoder, words=self.words, minutes=minutes, shortest=self.shortest)


@dataclass(frozen=True, eq=False)
class BoundaryWeights:
    """Weights of the logistic regression: of the measures, then of the cues."""

    cues: list[str]
    weights: np.ndarray
    intercept: float

    def log_odds(self, features: PassageFeatures) -> np.ndarray:
        """Return the log-odds that a chapter starts with each passage: (passages,)."""
        weight_of = dict(zip(self.cues, self.weights[MEASURES:].tolist(), strict=True))
        spoken = [sum(weight_of.get(cue, 0.0) for cue in sorted(cues)) for cues in features.cues]
        return features.measures @ self.weights[:MEASURES] + np.array(spoken) + self.intercept


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A segmenter.

    weights: None if it finds chapters by content vectors.
    seen: the examples of the lessons that it has learnt from.
    """

    card: SegmenterCard
    weights: BoundaryWeights | None = None
    seen: SeenExamples | None = None

    def save(self, folder: Path) -> None:
        """Write the segmenter into an existing folder."""
        write_text(folder / CARD, self.card.model_dump_json(indent=1) + "\n")
        if self.weights:
            arrays = {"weights": self.weights.weights, "intercept": np.array([self.weights.intercept])}
            save_file(arrays, folder / WEIGHTS)
        if self.seen:
            self.seen.write(folder)

    @classmethod
    def load(cls, folder: Path) -> Segmenter:
        """Read a segmenter.

        Raises:
            Rejected: the files are missing or damaged.
        """
        try:
            card = SegmenterCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
            seen = SeenExamples.read(folder)
            if card.method == "content vectors":
                return cls(card, seen=seen)
            arrays = load_file(folder / WEIGHTS)
            weights = BoundaryWeights(card.cues, arrays["weights"], float(arrays["intercept"][0]))
            _check_size(weights.weights, card.cues)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise Rejected(
                f"{folder} is not a segmenter: {error}. Run `dvc repro segment`, then `lectern register`."
            ) from None
        return cls(card, weights, seen)


def _check_size(weights: np.ndarray, cues: Sequence[str]) -> None:
    if weights.shape != (MEASURES + len(cues),):
        raise ValueError(f"{WEIGHTS} has {weights.shape} weights for {MEASURES} measures and {len(cues)} cues")
