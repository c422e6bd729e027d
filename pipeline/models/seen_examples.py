"""Examples that a model's weights have learnt from or were selected by, along the whole chain of its checkpoints.

A training writes the list into its model folder, as hashes that reveal no words. If its checkpoint is a model folder
of Lectern too, the checkpoint's list is included. So a version tells what its whole chain has seen, even after earlier
versions and their runs are deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.errors import Rejected
from pipeline.files import write_text
from pipeline.settings import Settings

SEEN = "seen.json"
_CARD = "lectern.json"  # tells a model folder of Lectern's from others
_PLACE = ["course_title", "lesson_num", "start_seconds"]
_DIGEST_BYTES = 8


class Seen(Settings):
    """`seen.json` of a model folder: hashes of examples, sorted."""

    train: list[str]  # that the weights have learnt from
    validation: list[str]  # that chose the epoch, and ranked the model
    unknown: list[str] = []  # checkpoints of the chain that Lectern trained before it wrote such lists

    @classmethod
    def of_training(cls, train: pd.DataFrame, validation: pd.DataFrame, checkpoint: Path | None, place: str) -> Seen:
        """The examples of a training on these splits, and those of its checkpoint.

        Args:
            train: the examples that the weights learn from; none of a model that is taken as it comes.
            checkpoint: the folder or file that the weights start from; None where they are random.
            place: the checkpoint as `params.yaml` names it.
        """
        before = cls.read(checkpoint) if checkpoint else None
        untold = before is None and checkpoint is not None and (checkpoint / _CARD).exists()
        before = before or cls(train=[], validation=[], unknown=[place] if untold else [])
        return cls(
            train=sorted({*before.train, *_all_hashes(train)}),
            validation=sorted({*before.validation, *_all_hashes(validation)}),
            unknown=before.unknown,
        )

    @classmethod
    def read(cls, folder: Path) -> Seen | None:
        """Read the list in a model folder; return None if the folder has no list.

        Raises:
            Rejected: it is damaged.
        """
        path = folder / SEEN
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Rejected(f"{path} is damaged: {error}. Train the model again, or `dvc checkout` it.") from None

    def write(self, folder: Path) -> None:
        write_text(folder / SEEN, self.model_dump_json(indent=1) + "\n")


def count_seen(folder: Path, split: Literal["validation", "test"], examples: pd.DataFrame) -> int:
    """The number of `examples` on which the model in `folder` scores too well, because its chain has seen them.

    On the test split these are examples of any training or validation split of the chain. The validation split is
    there to select models, so on it only examples of training splits count.
    """
    seen = Seen.read(folder)
    if seen is None:
        return 0
    return int(are_among(examples, [*seen.train, *(seen.validation if split == "test" else [])]).sum())


def are_among(examples: pd.DataFrame, hashes: Collection[str]) -> np.ndarray:
    """Mask of the `examples` that are among those of `hashes`: (examples,), booleans."""
    known = frozenset(hashes)
    return np.array([not known.isdisjoint(its) for its in _hashes(examples)], dtype=bool)


def digest_of(examples: pd.DataFrame) -> str:
    """Hash of a split's content. It depends neither on the order of the examples nor on the file that stores them."""
    rows = examples[[*_PLACE, "text", "title"]].itertuples(index=False)
    return hash_of(
        *sorted(hash_of(course, lesson, str(float(start)), *words) for course, lesson, start, *words in rows)
    )


def hash_of(*parts: str) -> str:
    """Short hash of several texts in this order."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _all_hashes(examples: pd.DataFrame) -> Iterator[str]:
    return (each for its in _hashes(examples) for each in its)


def _hashes(examples: pd.DataFrame) -> Iterator[list[str]]:
    """The hashes of each example: of its place in the course, and of its words.

    Either is enough to know an example again. A renamed course keeps its words, a corrected transcript its places.
    """
    for course, lesson, start, text in examples[[*_PLACE, "text"]].itertuples(index=False):
        words = " ".join(text.split()).casefold()
        yield [hash_of(course, lesson, str(float(start))), *([hash_of(words)] if words else [])]
