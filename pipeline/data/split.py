"""Train, validation and test: by lesson, decided by hash, so that more lessons move no old ones."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from pipeline.data.lessons import LESSON
from pipeline.errors import Rejected
from pipeline.settings import Section

LEAKS = "split.by is random: lessons stand on several sides, so scores are better than they should be."

_TRIES = 200_000  # hashes that the search for a better seed may cost

log = logging.getLogger(__name__)


class SplitSettings(Section):
    """How examples are divided."""

    section: ClassVar[str] = "split"

    by: Literal["lesson", "random"] = Field(description="random: topics at random, for comparison only, it leaks")
    validation: float = Field(gt=0, lt=1, description="share of the lessons, on average over seeds")
    test: float = Field(gt=0, lt=1, description="share of the lessons, on average over seeds")
    seed: int = Field(description="another seed, another division")

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must be below 1, or nothing is left to train on")
        return self


@dataclass(frozen=True)
class Splits:
    """The examples of each side, in the order in which they came."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame

    @staticmethod
    def names() -> list[str]:
        """The three sides."""
        return [field.name for field in fields(Splits)]

    def items(self) -> list[tuple[str, pd.DataFrame]]:
        """Each side with its name."""
        return [(name, getattr(self, name)) for name in self.names()]


def split(examples: pd.DataFrame, settings: SplitSettings) -> Splits:
    """Every example on one side. With `by: lesson` the examples of a lesson stay together.

    Each lesson (or topic) is hashed with the seed to a number in [0, 1), which alone decides its side: the same on
    every machine, whatever else is in the table and in whatever order.

    Raises:
        Rejected: a side is empty; the message names the counts and a seed that gives none.
    """
    if settings.by == "random":
        log.warning(LEAKS)
    units, unit_of_example = _units(examples, settings.by)
    side = _sides(units, settings)
    if len(np.unique(side)) < len(Splits.names()):
        raise Rejected(_empty_side(units, side, settings))
    return Splits(*(examples[(side == n)[unit_of_example]].reset_index(drop=True) for n in range(len(Splits.names()))))


def lessons_by_side(splits: Splits) -> pd.DataFrame:
    """One row a lesson: course_title, lesson_num, sides (how many hold it; 1 where nothing leaks), examples."""
    parts = [part[LESSON].assign(side=name) for name, part in splits.items()]
    lessons = pd.concat(parts, ignore_index=True).groupby(LESSON, as_index=False)
    return lessons.agg(sides=("side", "nunique"), examples=("side", "size"))


def _units(examples: pd.DataFrame, by: str) -> tuple[list[str], np.ndarray]:
    """What is put on a side as a whole, each as a text to hash, and the position of each example's among them."""
    columns = LESSON if by == "lesson" else [*LESSON, "start_seconds", "title"]
    groups = examples.groupby(columns, sort=True)
    keys = groups.size().index.to_frame(index=False).itertuples(index=False)
    return ["\x1f".join(map(str, key)) for key in keys], groups.ngroup().to_numpy()


def _sides(units: list[str], settings: SplitSettings) -> np.ndarray:
    """The side of each unit, as a position in `Splits`."""
    points = np.array([_point(f"{settings.seed}\x1f{unit}") for unit in units])
    return np.where(points < settings.test, 2, np.where(points < settings.test + settings.validation, 1, 0))


def _point(text: str) -> float:
    """`text` as a number in [0, 1) that looks random and is the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _empty_side(units: list[str], side: np.ndarray, settings: SplitSettings) -> str:
    what = "lessons" if settings.by == "lesson" else "topics"
    found = f"The split of {len(units)} {what} leaves a side empty: {_counts(side)}."
    if len(units) < len(Splits.names()):
        return f"{found} Three sides need at least three {what}: add some to the workbook."
    seeds = min(500, max(1, _TRIES // len(units)))
    for seed in range(1, seeds + 1):
        other = _sides(units, settings.model_copy(update={"seed": seed}))
        if len(np.unique(other)) == len(Splits.names()):
            return f"{found} Set split.seed to {seed} in params.yaml: {_counts(other)}."
    return f"{found} No seed from 1 to {seeds} helps: raise split.validation or split.test in params.yaml."


def _counts(side: np.ndarray) -> str:
    numbers = np.bincount(side, minlength=len(Splits.names()))
    return ", ".join(f"{number} {name}" for number, name in zip(numbers, Splits.names(), strict=True))
