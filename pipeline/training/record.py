"""What a training leaves of itself for later stages: reports/training/MODEL/."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from pydantic import BaseModel, ConfigDict

from pipeline.errors import Rejected
from pipeline.files import file_aside, write_text
from pipeline.paths import TRAINING


class TrainingRun(BaseModel):
    """run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str  # of MLflow; another tracking server does not know it
    parameters: int
    trainable_parameters: int
    seconds: float
    bertscore: str | None = None  # by whom it was measured after each epoch
    lineage: dict[str, str]  # the run's tags, for a tracking server that does not know it


@dataclass(frozen=True)
class Training:
    """How a model was trained."""

    run: TrainingRun
    curves: pd.DataFrame  # curves.csv: a row an epoch; none for a model that was taken as it comes


def write_training(model: str, training: Training) -> None:
    with file_aside(TRAINING / model / "curves.csv") as path:
        training.curves.to_csv(path, index=False)
    write_text(TRAINING / model / "run.json", training.run.model_dump_json(indent=2) + "\n")


def read_training(model: str) -> Training:
    """What `write_training` wrote for `model`.

    Raises:
        Rejected: it is not there, or cannot be read.
    """
    folder = TRAINING / model
    try:
        run = TrainingRun.model_validate_json((folder / "run.json").read_text(encoding="utf-8"))
        return Training(run, pd.read_csv(folder / "curves.csv"))
    except FileNotFoundError as error:
        raise Rejected(
            f"{error.filename} is not here: '{model}' has not been trained. Run `dvc repro` first."
        ) from None
    except ValueError as error:
        raise Rejected(f"{folder} does not tell how '{model}' was trained: {error}. Train it again.") from None
