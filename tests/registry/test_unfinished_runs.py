"""MLflow runs and databases of killed processes: the real command, the real signal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.registry.unfinished_runs import markers_of_killed
from pipeline.settings import set_params
from tests.command import kill_once, lectern
from tests.training.small import environment, fill_project

STAGE = ("train", "bart-tiny")


def _statuses(project: Path) -> dict[str, str]:
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("lectern")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return {run.info.run_id: run.info.status for run in runs}


@pytest.fixture
def kill(project: Path) -> Callable[[Callable[[], object]], None]:
    (streams := project / "streams").mkdir()
    return lambda happened: kill_once(happened, *STAGE, cwd=project, env=environment(), streams=streams)


@pytest.mark.slow
def test_the_run_of_a_killed_training_gets_the_status_killed(
    project: Path, examples: pd.DataFrame, kill: Callable[[Callable[[], object]], None]
) -> None:
    fill_project(project, examples, epochs=20, early_stopping=0)
    kill(lambda: [*project.glob(".lectern/checkpoints/*/mlflow_run_id")])
    ((lost, status),) = _statuses(project).items()
    assert status == "RUNNING"
    assert markers_of_killed()
    set_params(["train"], {"epochs": 1})
    assert lectern(*STAGE, cwd=project, env=environment()).returncode == 0
    statuses = _statuses(project)
    assert statuses.pop(lost) == "KILLED"
    assert [*statuses.values()] == ["FINISHED"]
    assert not [*(project / ".lectern/running").glob("*")]


@pytest.mark.slow
def test_a_database_whose_creation_was_killed_is_created_again(
    project: Path, examples: pd.DataFrame, kill: Callable[[Callable[[], object]], None]
) -> None:
    fill_project(project, examples, epochs=1)
    database = project / "mlflow.db"
    database.unlink()
    kill(lambda: [file for file in project.rglob("mlflow.db") if file.stat().st_size > 200_000])
    done = lectern(*STAGE, cwd=project, env=environment())
    assert done.returncode == 0, done.stderr
    assert [*_statuses(project).values()] == ["FINISHED"]
