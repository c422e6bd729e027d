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
_CARD = "lectern.json"  # distinguishes Lectern's model folders from others
_PLACE = ["course_title", "lesson_num", "start_seconds"]
_DIGEST_BYTES = 8


class SeenExamples(Settings):
    """`seen.json` of a model folder: sorted hashes of examples."""

    train: list[str]  # examples that the weights learnt from
    validation: list[str]  # examples that selected the epoch and ranked the model
    unknown: list[str] = []  # checkpoints of the chain that Lectern trained before it wrote such lists

    @classmethod
    def of_training(
        cls, train: pd.DataFrame, validation: pd.DataFrame, checkpoint: Path | None, address: str
    ) -> SeenExamples:
        """Collect the examples of a training and of its checkpoint.

        Args:
            train: Examples that the weights learn from. Empty for a model that is not trained.
            validation: Examples that select the epoch and rank the model.
            checkpoint: Folder or file that the weights start from. None for random weights.
            address: The checkpoint's address in `params.yaml`.
        """
        before = cls.read(checkpoint) if checkpoint else None
        lacks_list = before is None and checkpoint is not None and (checkpoint / _CARD).exists()
        before = before or cls(train=[], validation=[], unknown=[address] if lacks_list else [])
        return cls(
            train=sorted({*before.train, *_all_hashes(train)}),
            validation=sorted({*before.validation, *_all_hashes(validation)}),
            unknown=before.unknown,
        )

    @classmethod
    def read(cls, folder: Path) -> SeenExamples | None:
        """Read the list in a model folder. Return None if the folder has no list.

        Raises:
            Rejected: The list is damaged.
        """
        path = folder / SEEN
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Rejected(f"{path} is damaged: {error}. Run `dvc checkout`, or train the model again.") from None

    def write(self, folder: Path) -> None:
        """Write `seen.json` into a model folder."""
        write_text(folder / SEEN, self.model_dump_json(indent=1) + "\n")


def count_seen(folder: Path, split: Literal["validation", "test"], examples: pd.DataFrame) -> int:
    """Count the examples on which a model scores too well, because its chain of checkpoints has seen them.

    On the test split, these are examples of any training or validation split of the chain. The validation split exists
    to select models, so there only examples of training splits count.
    """
    seen = SeenExamples.read(folder)
    if seen is None:
        return 0
    return int(are_among(examples, [*seen.train, *(seen.validation if split == "test" else [])]).sum())


def are_among(examples: pd.DataFrame, hashes: Collection[str]) -> np.ndarray:
    """Return a mask of the examples that `hashes` contains: (examples,), booleans."""
    known = frozenset(hashes)
    return np.array([not known.isdisjoint(of_example) for of_example in _hashes(examples)], dtype=bool)


def digest_of(examples: pd.DataFrame) -> str:
    """Hash a split's content, independently of the order of its examples and of its file format."""
    rows = examples[[*_PLACE, "text", "title"]].itertuples(index=False)
    return hash_of(
        *sorted(hash_of(course, lesson, str(float(start)), *words) for course, lesson, start, *words in rows)
    )


def hash_of(*parts: str) -> str:
    """Return a short hash of several texts in this order."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _all_hashes(examples: pd.DataFrame) -> Iterator[str]:
    return (each for of_example in _hashes(examples) for each in of_example)


def _hashes(examples: pd.DataFrame) -> Iterator[list[str]]:
    """Yield the hashes of each example: one of its place in the course, and one of its words.

    Either hash identifies an example. A renamed course keeps its words, and a corrected transcript keeps its places.
    """
    for course, lesson, start, text in examples[[*_PLACE, "text"]].itertuples(index=False):
        words = " ".join(text.split()).casefold()
        yield [hash_of(course, lesson, str(float(start))), *([hash_of(words)] if words else [])]
