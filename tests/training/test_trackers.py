"""A training logs the machine's load to MLflow, and reports to other trackers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.errors import UsageError
from pipeline.stages import train
from tests.command import lectern
from tests.training.small import STAGE, environment, fill_project, kill_after_a_checkpoint, mlflow_runs

_, MODEL = STAGE
LOAD = {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}


@pytest.mark.slow
def test_the_load_of_the_machine_is_logged_before_and_after_an_interruption(
    project: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    fill_project(project, examples, epochs=4, batch_size=4)
    kill_after_a_checkpoint(project)
    client = MlflowClient()
    (run,) = mlflow_runs(client)
    assert lectern(*STAGE, cwd=project, env=environment()).returncode == 0
    (run,) = mlflow_runs(client)
    assert run.data.metrics.keys() >= LOAD
    for name in LOAD:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
        assert len(steps) > 1
        assert len(steps) == len(set(steps))


def test_tensorboard_shows_a_training_that_reports_to_it(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, epochs=2, batch_size=4, report_to=["tensorboard"])
    train.run(MODEL)
    (run,) = mlflow_runs(MlflowClient())
    shown = EventAccumulator(str(project / ".lectern/tensorboard" / f"{MODEL}-{run.info.run_id}")).Reload()
    losses = [event.value for event in shown.Scalars("eval/loss")]
    logged = MlflowClient().get_metric_history(run.info.run_id, "validation_loss")
    assert losses == pytest.approx([metric.value for metric in logged], rel=1e-5)
    assert "train/loss" in shown.Tags()["scalars"]


@pytest.mark.skipif(find_spec("wandb") is not None, reason="W&B is installed here")
def test_a_tracker_that_is_not_installed_is_refused_before_any_work(
    project: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_project(project, examples, epochs=1, report_to=["wandb"])
    (project / "wandb").mkdir()  # W&B creates this folder, which is not the package
    monkeypatch.syspath_prepend(str(project))
    with pytest.raises(UsageError, match=r"report_to .* needs wandb. Run: pip install 'lectern-chapters\[wandb\]'"):
        train.run(MODEL)
    assert not (project / ".lectern").exists()
