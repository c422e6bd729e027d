"""Write and read the record of a training for later stages: reports/training/MODEL/."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.errors import Rejected
from pipeline.files import file_aside, write_text
from pipeline.json_records import Record
from pipeline.paths import TRAINING


class TrainingRun(Record):
    """`run.json`: the MLflow run, size and duration of a training."""

    run_id: str  # MLflow run, which only the tracking server of the training has
    parameters: int
    trainable_parameters: int
    seconds: float
    bertscore: str | None = None  # model and layer that measured BERTScore after each epoch
    lineage: dict[str, str]  # the run's tags, for tracking servers that do not have the run

    @property
    def from_scratch(self) -> bool:
        """Return whether the training started from random weights: it names no checkpoint."""
        return "checkpoint" not in self.lineage


@dataclass(frozen=True)
class Training:
    """Record of a training."""

    run: TrainingRun
    curves: pd.DataFrame  # curves.csv: one row per epoch; empty for a model without training


def write_training(model: str, training: Training) -> None:
    """Write `run.json` and `curves.csv` of a model."""
    with file_aside(TRAINING / model / "curves.csv") as path:
        training.curves.to_csv(path, index=False)
    write_text(TRAINING / model / "run.json", training.run.model_dump_json(indent=2) + "\n")


def read_training(model: str) -> Training:
    """Read the record that `write_training` wrote for a model.

    Raises:
        Rejected: A file is missing or damaged.
    """
    folder = TRAINING / model
    try:
        run = TrainingRun.model_validate_json((folder / "run.json").read_text(encoding="utf-8"))
        return Training(run, pd.read_csv(folder / "curves.csv"))
    except FileNotFoundError as error:
        raise Rejected(
            f"{error.filename} does not exist: '{model}' has not been trained. Run `dvc repro` first."
        ) from None
    except ValueError as error:
        raise Rejected(f"The training record of '{model}' in {folder} is damaged: {error}. Train it again.") from None
