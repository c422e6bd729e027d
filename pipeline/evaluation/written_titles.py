"""The titles that a model gave to the validation and test splits, before they are scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd

from pipeline.errors import Rejected
from pipeline.files import folder_aside, write_json
from pipeline.paths import TITLES

EXAMPLE = ["split", "course_title", "lesson_num", "start_seconds"]  # the columns that identify an example
MEASURED_SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


def titled(examples: pd.DataFrame, predicted: Sequence[str], split: str) -> pd.DataFrame:
    """One row per example: `EXAMPLE`, the true title and the predicted one.

    Args:
        examples: a split.
        predicted: one title per example, in the same order.
        split: the name of the split.
    """
    known = examples[[*EXAMPLE[1:], "title"]].reset_index(drop=True)
    known.insert(0, "split", split)
    return known.assign(prediction=pd.Series(list(predicted), dtype="str"))


def write_titles(model: str, titles: pd.DataFrame, seconds: float, seen: Mapping[str, int]) -> None:
    """Write the titles of a model, and the seconds that it took to give them.

    Args:
        seen: by split, the number of examples that the model or one of its checkpoints has seen.
    """
    with folder_aside(TITLES / model, durable=False) as folder:
        titles.to_parquet(folder / "titles.parquet", index=False)
        write_json(folder / "seconds.json", round(seconds, 2), durable=False)
        write_json(folder / "seen.json", dict(seen), durable=False)


def read_titles(model: str) -> tuple[pd.DataFrame, float, dict[str, int]]:
    """The titles, the seconds and the counts of seen examples that `write_titles` wrote for `model`.

    Raises:
        Rejected: the files are missing or damaged.
    """
    folder = TITLES / model
    try:
        titles = pd.read_parquet(folder / "titles.parquet")
        seconds, seen = (
            json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("seconds", "seen")
        )
        return titles, seconds, seen
    except FileNotFoundError as error:
        raise Rejected(
            f"{error.filename or folder} is missing: '{model}' has no titles yet. Run `dvc repro`."
        ) from None
    except (ValueError, OSError) as error:
        raise Rejected(
            f"The titles of '{model}' in {folder} cannot be read: {error}. Run `dvc repro --force predict@{model}`."
        ) from None
