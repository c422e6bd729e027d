"""A training that was killed goes on where it was: the real stage, the real signal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.registry.lineage import md5
from pipeline.settings import set_params
from tests.command import lectern
from tests.training.small import STAGE, environment, fill_project, kill_after_a_checkpoint, mlflow_runs


@pytest.mark.parametrize(
    "knobs", [{"epochs": 6}, {"epochs": 1, "batch_size": 2, "checkpoint_minutes": 0}], ids=["between epochs", "in one"]
)
def test_a_killed_stage_ends_with_the_model_of_an_undisturbed_one(
    knobs: dict[str, object], project: Path, examples: pd.DataFrame
) -> None:
    many = pd.concat([examples] * 4, ignore_index=True)
    fill_project(project, many, early_stopping=0, **knobs)
    undisturbed = lectern(*STAGE, cwd=project, env=environment())
    assert undisturbed.returncode == 0, undisturbed.stderr
    model = project / "models/bart-tiny"
    expected = md5(model)
    model.rename(project / "undisturbed")
    kill_after_a_checkpoint(project)
    resumed = lectern(*STAGE, cwd=project, env=environment())
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from checkpoint-" in resumed.stderr
    assert md5(model) == expected
    assert not [*project.glob(".lectern/checkpoints/*")]
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    runs = mlflow_runs(client)
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED"]
    # No metric is lost, and none is there twice.
    one, other = (_steps(client, run.info.run_id) for run in runs)
    assert one == other
    assert one["train_loss"] == [*range(1, len(one["train_loss"]) + 1)]


def test_a_training_for_which_memory_was_too_little_goes_on_with_smaller_micro_batches(
    project: Path, examples: pd.DataFrame
) -> None:
    fill_project(project, pd.concat([examples] * 4, ignore_index=True), early_stopping=0, epochs=6)
    kill_after_a_checkpoint(project)
    smaller = {"micro_batch_tokens": 100, "gradient_checkpointing": True}
    set_params(["train"], smaller, project / "params.yaml")
    resumed = lectern(*STAGE, cwd=project, env=environment())
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from checkpoint-" in resumed.stderr


def _steps(client: MlflowClient, run_id: str) -> dict[str, list[int]]:
    names = client.get_run(run_id).data.metrics
    return {name: sorted(metric.step for metric in client.get_metric_history(run_id, name)) for name in names}
