"""The stages of one model, one after the other, as they are run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from safetensors import safe_open

from pipeline.models import generation
from pipeline.models.checkpoints import load_model
from pipeline.paths import MODELS, STATE
from pipeline.stages import evaluate, train
from pipeline.training.fit import Diverged
from pipeline.training.record import read_training
from tests.training.small import STAGE, fill_project, mlflow_runs

_, MODEL = STAGE


def test_adapters_are_what_trains_and_are_no_longer_to_be_seen_in_the_models_folder(
    project: Path, examples: pd.DataFrame
) -> None:
    fill_project(project, examples, lora={"rank": 2, "alpha": 4}, epochs=1)
    train.run(MODEL)
    trained = read_training(MODEL).run
    assert 0 < trained.trainable_parameters < trained.parameters / 10
    with safe_open(MODELS / MODEL / "model.safetensors", framework="pt") as weights:
        assert not [name for name in weights.keys() if "lora" in name or "base_layer" in name]  # noqa: SIM118
    load_model(MODELS / MODEL)


def test_a_training_that_diverged_leaves_nothing_to_go_on_from(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, epochs=1, learning_rate=1e30, max_gradient_norm=1e30, schedule="constant")
    with pytest.raises(Diverged):
        train.run(MODEL)
    assert not [*(STATE / "checkpoints").iterdir()]
    assert not (MODELS / MODEL).exists()
    (run,) = mlflow_runs(MlflowClient())
    assert run.info.status == "FAILED"


def test_what_a_training_kept_of_a_frozen_encoder_serves_the_evaluation(
    project: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_project(project, examples, freeze=["embedding", "encoder"], epochs=1)
    train.run(MODEL)
    monkeypatch.setattr(generation, "Encoded", None)  # who would run the encoder anew
    evaluate.run(MODEL)
