"""A killed stage resumes its training: the real stage with the real signal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from pipeline.registry.lineage import md5
from tests.command import lectern
from tests.training.small import STAGE, environment, fill_project, kill_after_a_checkpoint, mlflow_runs


def test_a_killed_stage_ends_with_the_model_of_an_undisturbed_one(project: Path, examples: pd.DataFrame) -> None:
    many = pd.concat([examples] * 4, ignore_index=True)
    fill_project(project, many, epochs=1, batch_size=2, checkpoint_minutes=0)
    undisturbed = lectern(*STAGE, cwd=project, env=environment())
    assert undisturbed.returncode == 0, undisturbed.stderr
    model = project / "models/bart-tiny"
    expected = md5(model)
    model.rename(project / "undisturbed")
    kill_after_a_checkpoint(project)
    resumed = lectern(*STAGE, cwd=project, env=environment())
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from checkpoint-" in resumed.stderr
    assert md5(model) == expected
    assert not [*project.glob(".lectern/checkpoints/*")]
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    runs = mlflow_runs(client)
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED"]
    # All metrics are logged, each once.
    one, other = (_steps(client, run.info.run_id) for run in runs)
    assert one == other
    assert one["train_loss"] == [*range(1, len(one["train_loss"]) + 1)]


def _steps(client: MlflowClient, run_id: str) -> dict[str, list[int]]:
    names = client.get_run(run_id).data.metrics
    return {name: sorted(metric.step for metric in client.get_metric_history(run_id, name)) for name in names}
