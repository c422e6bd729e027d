"""DVC experiments log to the project's MLflow and register nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.graph.plan import read_plan
from flows.graph.run_copy import RunParameters, copy_of_project
from flows.train import register_after_experiment
from tests.whole_project import dvc, make_project, run

MODEL = "t5-tiny"

# The whole graph runs in a temporary copy. tests/test_pipeline.py has the main case, an experiment in the work tree.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which one experiment has run, in a temporary copy."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, [MODEL])
    dvc(folder, "exp", "run", "--temp", "--name", "short-texts", "--set-param", f"models.{MODEL}.max_source_tokens=32")
    return folder


@pytest.fixture
def client(project: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    uri = f"sqlite:///{project}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def test_the_runs_of_a_temporary_experiment_are_in_the_projects_mlflow(project: Path, client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("lectern")
    assert experiment is not None
    runs = {run.data.tags["model"]: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.data.tags["dvc.experiment"] for run in runs.values()} == {"short-texts"}
    assert {*runs} == {MODEL, "segmenter"}
    run = runs[MODEL]
    assert run.data.params["max_source_tokens"] == "32"
    assert run.info.artifact_uri.startswith((project / "mlartifacts").as_uri())
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} >= {"model_summary.csv"}


def test_an_experiment_registers_no_version(client: MlflowClient) -> None:
    assert not client.search_registered_models()


def test_an_experiment_leaves_the_work_tree_unchanged(project: Path) -> None:
    assert not (project / "reports").exists()
    assert not (project / "models").exists()


def test_the_model_of_an_applied_experiment_is_registered_next(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    dvc(project, "exp", "apply", "short-texts")
    assert [stage.name for stage in read_plan(project).to_run()] == ["register"]


def test_a_flow_registers_the_model_of_an_experiment_that_ran_in_the_work_tree(
    project: Path, monkeypatch: pytest.MonkeyPatch, client: MlflowClient
) -> None:
    monkeypatch.chdir(project)
    dvc(project, "exp", "run", "--name", "here")
    assert not client.search_registered_models()
    assert not read_plan(project).to_run()
    register_after_experiment()
    assert [stage.name for stage in read_plan(project).to_run()] == ["register"]
    dvc(project, "repro")
    assert client.get_model_version_by_alias("lectern", "challenger").version


def test_a_run_with_parameters_registers_a_challenger_and_leaves_the_project_unchanged(
    project: Path, monkeypatch: pytest.MonkeyPatch, client: MlflowClient
) -> None:
    monkeypatch.chdir(project)
    before = client.get_model_version_by_alias("lectern", "challenger").version
    status, lock = run(project, "git", "status", "--porcelain").stdout, Path("dvc.lock").read_bytes()
    with copy_of_project(RunParameters(epochs=2)) as reports:
        dvc(Path.cwd(), "repro")
    version = client.get_model_version_by_alias("lectern", "challenger")
    assert int(version.version) == int(before) + 1
    assert version.tags["git.dirty"] == "true"  # by the epochs
    trained = client.get_run(version.run_id)
    assert trained.data.params["epochs"] == "2"
    assert trained.info.artifact_uri.startswith((project / "mlartifacts").as_uri())
    assert (reports / "report.html").exists()
    assert run(project, "git", "status", "--porcelain").stdout == status
    assert Path("dvc.lock").read_bytes() == lock
    assert not read_plan(project).to_run()
