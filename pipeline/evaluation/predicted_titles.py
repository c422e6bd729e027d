"""Write and read the titles of a model for the validation and test splits, before they are scored."""

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


def title_table(examples: pd.DataFrame, predicted: Sequence[str], split: str) -> pd.DataFrame:
    """Build a table of `EXAMPLE`, title and prediction, with one row per example.

    Args:
        examples: a split.
        predicted: one title per example, in the same order.
        split: the name of the split.
    """
    known = examples[[*EXAMPLE[1:], "title"]].reset_index(drop=True)
    known.insert(0, "split", split)
    return known.assign(prediction=pd.Series(list(predicted), dtype="str"))


def write_titles(model: str, titles: pd.DataFrame, seconds: float, seen: Mapping[str, int]) -> None:
    """Write the titles of a model.

    Args:
        model: the name of the model.
        titles: from `title_table`, of both splits.
        seconds: the time to generate the titles.
        seen: by split, the number of examples that the model or one of its checkpoints was trained or selected on.
    """
    with folder_aside(TITLES / model, durable=False) as folder:
        titles.to_parquet(folder / "titles.parquet", index=False)
        write_json(folder / "seconds.json", round(seconds, 2), durable=False)
        write_json(folder / "seen.json", dict(seen), durable=False)


def read_titles(model: str) -> tuple[pd.DataFrame, float, dict[str, int]]:
    """Read the titles, the seconds and the counts of seen examples of a model.

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
            f"{error.filename or folder} is missing: '{model}' has no titles yet. Run `dvc repro predict@{model}`."
        ) from None
    except (ValueError, OSError) as error:
        raise Rejected(
            f"The titles of '{model}' in {folder} cannot be read: {error}. Run `dvc repro --force predict@{model}`."
        ) from None
