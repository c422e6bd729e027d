"""Split examples by lesson into train, validation and test. A hash decides, so new lessons move no old ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from pipeline.data.workbook_schema import LESSON
from pipeline.errors import Rejected
from pipeline.settings import Section

LEAKS = "split.by is random: a lesson can be in several splits, so scores are too good."

_MAX_HASHES = 200_000  # limit of the search for a better seed

log = logging.getLogger(__name__)


class SplitSettings(Section):
    """Settings of the split."""

    section: ClassVar[str] = "split"

    by: Literal["lesson", "random"] = Field(
        description="lesson, or random: by topic, which leaks, so only for comparison"
    )
    validation: float = Field(gt=0, lt=1, description="share of the lessons, on average over seeds")
    test: float = Field(gt=0, lt=1, description="share of the lessons, on average over seeds")
    seed: int = Field(description="another seed gives another split")

    @model_validator(mode="after")
    def _leaves_examples_for_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must be below 1, to leave examples for training")
        return self


@dataclass(frozen=True)
class Splits:
    """The examples of each split, in their original order."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame

    @staticmethod
    def names() -> list[str]:
        """Return the names of the three splits."""
        return [field.name for field in fields(Splits)]

    def items(self) -> list[tuple[str, pd.DataFrame]]:
        """Return each split with its name."""
        return [(name, getattr(self, name)) for name in self.names()]


def split(examples: pd.DataFrame, settings: SplitSettings) -> Splits:
    """Split examples. With `by: lesson`, all examples of a lesson are in the same split.

    A hash of the seed and the lesson (or topic) gives a number in [0, 1), which decides the split. The result does not
    depend on the machine, on other lessons, or on the order of the rows.

    Raises:
        Rejected: a split is empty. The message suggests a seed that leaves no split empty.
    """
    if settings.by == "random":
        log.warning(LEAKS)
    units, unit_of_example = _units(examples, settings.by)
    assigned = _assign_splits(units, settings)
    if len(np.unique(assigned)) < len(Splits.names()):
        raise Rejected(_empty_split_message(units, assigned, settings))
    return Splits(
        *(examples[(assigned == n)[unit_of_example]].reset_index(drop=True) for n in range(len(Splits.names())))
    )


def nearest_seed(examples: pd.DataFrame, settings: SplitSettings) -> int:
    """Return the seed whose splits come nearest to the wanted shares of the examples, the lowest of equal ones.

    Few lessons of unequal length miss the shares with most seeds. Choose a seed once per workbook: another seed moves
    lessons from one split to another.

    Args:
        examples: rows with the columns course_title and lesson_num, one per example or topic.
        settings: the wanted shares.
    """
    units, unit_of_example = _units(examples, "lesson")
    sizes = np.bincount(unit_of_example)
    wanted = np.array([1 - settings.validation - settings.test, settings.validation, settings.test])

    def distance(seed: int) -> float:
        assigned = _assign_splits(units, settings.model_copy(update={"seed": seed}))
        shares = np.bincount(assigned, weights=sizes, minlength=len(wanted)) / sizes.sum()
        return float(np.abs(shares - wanted).sum())

    return min(range(1, _seeds_to_try(units) + 1), key=distance)


def lessons_by_side(splits: Splits) -> pd.DataFrame:
    """Return one row per lesson: course_title, lesson_num, sides, examples.

    `sides` is the number of splits with examples of the lesson: 1 if nothing leaks.
    """
    parts = [part[LESSON].assign(side=name) for name, part in splits.items()]
    lessons = pd.concat(parts, ignore_index=True).groupby(LESSON, as_index=False)
    return lessons.agg(sides=("side", "nunique"), examples=("side", "size"))


def _units(examples: pd.DataFrame, by: str) -> tuple[list[str], np.ndarray]:
    """Return the units that stay together, as texts to hash, and the position of each example's unit."""
    columns = LESSON if by == "lesson" else [*LESSON, "start_seconds", "title"]
    groups = examples.groupby(columns, sort=True)
    keys = groups.size().index.to_frame(index=False).itertuples(index=False)
    return ["\x1f".join(map(str, key)) for key in keys], groups.ngroup().to_numpy()


def _assign_splits(units: list[str], settings: SplitSettings) -> np.ndarray:
    """Return the split of each unit, as a position in `Splits`."""
    points = np.array([_hash(f"{settings.seed}\x1f{unit}") for unit in units])
    return np.where(points < settings.test, 2, np.where(points < settings.test + settings.validation, 1, 0))


def _hash(text: str) -> float:
    """Hash a text to a number in [0, 1) that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _empty_split_message(units: list[str], assigned: np.ndarray, settings: SplitSettings) -> str:
    what = "lessons" if settings.by == "lesson" else "topics"
    found = f"The {len(units)} {what} leave a split empty: {_counts(assigned)}."
    if len(units) < len(Splits.names()):
        return f"{found} Three splits need at least three {what}. Add some to the workbook."
    seeds = _seeds_to_try(units)
    for seed in range(1, seeds + 1):
        other = _assign_splits(units, settings.model_copy(update={"seed": seed}))
        if len(np.unique(other)) == len(Splits.names()):
            return f"{found} Set split.seed to {seed} in params.yaml, which gives {_counts(other)}."
    return f"{found} No seed from 1 to {seeds} helps. Raise split.validation or split.test in params.yaml."


def _seeds_to_try(units: Sequence[str]) -> int:
    return min(500, max(1, _MAX_HASHES // len(units)))


def _counts(assigned: np.ndarray) -> str:
    numbers = np.bincount(assigned, minlength=len(Splits.names()))
    return ", ".join(f"{number} {name}" for number, name in zip(numbers, Splits.names(), strict=True))
