"""A team's servers, set by environment variables only: MLflow and Prefect on PostgreSQL, artifacts and DVC on S3."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.services.service import HOST, free_port
from tests.command import start
from tests.conftest import ROOT
from tests.team.servers import BUCKET, PASSWORD, keys, postgresql, query, s3
from tests.training.small import fill_project, mlflow_runs

MODELS = [f"bart-{number}" for number in range(1, 6)]
EPOCHS, STEPS = 2, 4  # of 16 examples in batches of 8
DEADLINE = 180


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a team member's new shell."""
    ours = ("MLFLOW_", "PREFECT_", "AWS_", "LECTERN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


def run(*words: str, cwd: Path, env: Mapping[str, str], check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def dvc(*words: str, cwd: Path, env: Mapping[str, str]) -> str:
    return run(sys.executable, "-m", "dvc", *words, cwd=cwd, env=env).stdout


@dataclass(frozen=True)
class Team:
    """The servers of `lectern up`, and their settings."""

    folder: Path
    place: str
    bucket: dict[str, str]
    prefect: str
    mlflow: str
    up: subprocess.Popen[str]

    def member(self) -> dict[str, str]:
        return environment(MLFLOW_TRACKING_URI=self.mlflow, PREFECT_API_URL=f"{self.prefect}/api", **self.bucket)

    def logs(self) -> str:
        """Return everything in the state folder, such as logs."""
        files = (self.folder / ".lectern").rglob("*")
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file())


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    with s3() as variables:
        yield variables


@pytest.fixture(scope="module")
def team(bucket: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """`lectern up` in a new project, on new databases."""
    folder = tmp_path_factory.mktemp("team")
    for name in ("params.yaml", "dvc.yaml", "prefect.yaml", "prefect.toml"):
        shutil.copy(ROOT / name, folder)
    with postgresql("mlflow", "prefect") as place:
        prefect, mlflow, reports = free_port(), free_port(), free_port()
        env = environment(
            MLFLOW_TRACKING_URI=f"postgresql://{place}/mlflow",
            MLFLOW_DEFAULT_ARTIFACT_ROOT=f"s3://{BUCKET}/mlflow",
            PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://{place}/prefect",
            **bucket,
        )
        ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow), "--reports-port", str(reports)]
        ports += ["--page-port", str(free_port())]
        with (folder / "up.log").open("w") as log:
            words = [sys.executable, "-m", "lectern", "up", *ports]
            up = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, text=True)
        try:
            wait_until_up(up, folder / "up.log")
            yield Team(folder, place, bucket, f"http://{HOST}:{prefect}", f"http://{HOST}:{mlflow}", up)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(DEADLINE)


def wait_until_up(up: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while "Ctrl-C" not in (output := log.read_text(encoding="utf-8")):
        assert up.poll() is None, output
        assert time.monotonic() < deadline, output
        time.sleep(0.2)


def small_models(project: Path, examples: pd.DataFrame, models: Sequence[str] = MODELS) -> None:
    """Fill the project with small untrained models."""
    fill_project(project, examples, epochs=EPOCHS, batch_size=8, early_stopping=0)
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    small = {**params["models"]["bart-tiny"], "scratch": {"width": 16, "layers": 1, "heads": 2, "vocabulary": 300}}
    params["models"] |= dict.fromkeys(models, small)
    params["contestants"] = [*models]
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def train_all_at_once(project: Path, env: dict[str, str], models: Sequence[str] = MODELS) -> str:
    """Train the models in parallel, and return their output."""
    trainings = {}
    for model in models:
        (streams := project / "streams" / model).mkdir(parents=True)
        trainings[streams] = start("train", model, cwd=project, env=env, streams=streams)
    ended = [training.wait(DEADLINE) for training in trainings.values()]
    output = "\n".join((streams / name).read_text(encoding="utf-8") for streams in trainings for name in "12")
    assert ended == [0] * len(models), output
    return output


def runs(client: MlflowClient) -> dict[str, Run]:
    found = mlflow_runs(client)
    return {run.info.run_name: run for run in found if run.info.run_name.startswith("bart-")}


def assert_whole(client: MlflowClient, run: Run) -> None:
    """Check that the run finished with every metric of every step and epoch exactly once."""
    assert run.info.status == "FINISHED"
    steps = {
        name: sorted(metric.step for metric in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }
    assert steps["train_loss"] == steps["train_learning_rate"] == [*range(1, STEPS + 1)]
    assert steps["validation_loss"] == steps["validation_rouge1"] == [STEPS // EPOCHS, STEPS]


def assert_all_logged(project: Path, models: Sequence[str] = MODELS) -> None:
    """Check the runs of all models in the project's own database."""
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    found = runs(client)
    assert sorted(found) == [*models]
    for each in found.values():
        assert_whole(client, each)


def test_five_trainings_at_once_lose_no_metric_and_no_artifact(
    team: Team, project: Path, examples: pd.DataFrame
) -> None:
    small_models(project, examples)
    (project / "mlflow.db").unlink()
    output = train_all_at_once(project, team.member())
    client = MlflowClient(team.mlflow)
    found = runs(client)
    assert sorted(found) == MODELS
    for each in found.values():
        assert_whole(client, each)
        place = each.info.artifact_uri
        assert place.startswith(f"s3://{BUCKET}/mlflow/")
        stored = {key.rpartition("/")[2] for key in keys(team.bucket, place.removeprefix(f"s3://{BUCKET}/"))}
        assert {"model_summary.csv", "batch_preview.txt"} <= stored
    assert not list(project.glob("ml*"))  # no local database and no local artifacts
    written = json.dumps([each.to_dictionary() for each in found.values()])
    for secret in (PASSWORD, team.bucket["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in output + written


@pytest.mark.slow
def test_five_trainings_at_once_on_a_fresh_sqlite_database_lose_no_metric(
    project: Path, examples: pd.DataFrame
) -> None:
    small_models(project, examples)
    (project / "mlflow.db").unlink()
    train_all_at_once(project, environment())
    assert_all_logged(project)


CONNECT = """
from pipeline.registry import tracking
tracking.EXPERIMENT = "new"
tracking.connect()
"""


def test_machines_that_create_the_experiment_at_once_all_get_it(team: Team, tmp_path: Path) -> None:
    """Each machine has its own work tree, and so its own lock."""
    machines = []
    for number in range(3):
        (place := tmp_path / str(number)).mkdir()
        words = [sys.executable, "-c", CONNECT]
        machines.append(subprocess.Popen(words, cwd=place, env=team.member(), stderr=subprocess.PIPE, text=True))
    errors = [machine.communicate(timeout=DEADLINE)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0, 0], "\n".join(errors)


FLOW = """
stages:
  one:
    cmd: cp source.txt one.txt
    deps: [source.txt]
    outs: [one.txt]
"""


def git_project(folder: Path, env: dict[str, str]) -> Path:
    folder.mkdir()
    run("git", "init", "--quiet", cwd=folder, env=env)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    shutil.copy(ROOT / "prefect.toml", folder)
    (folder / "dvc.yaml").write_text(FLOW, encoding="utf-8")
    (folder / "source.txt").write_text("1", encoding="utf-8")
    (folder / ".gitignore").write_text("/.lectern/\n/.prefect/\n", encoding="utf-8")
    return folder


def commit(folder: Path, env: dict[str, str]) -> None:
    run("git", "add", ".", cwd=folder, env=env)
    words = ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "all"]
    run("git", *words, cwd=folder, env=env)


def test_a_flow_run_is_stored_in_the_teams_database(team: Team, tmp_path: Path) -> None:
    project = git_project(tmp_path / "project", team.member())
    commit(project, team.member())
    done = run(sys.executable, "-m", "lectern", "run", cwd=project, env=team.member())
    assert "one" in done.stdout + done.stderr
    tasks = query(f"postgresql://{team.place}/prefect", "SELECT state_name FROM task_run WHERE name = 'one'")
    assert tasks == [("Completed",)]
    assert not (project / ".prefect").exists()


def test_results_pushed_by_one_clone_are_pulled_by_another(bucket: dict[str, str], tmp_path: Path) -> None:
    env = environment(**bucket, DVC_SITE_CACHE_DIR=str(tmp_path / "site"))
    first = git_project(tmp_path / "first", env)
    dvc("remote", "add", "--default", "team", f"s3://{BUCKET}/dvc", cwd=first, env=env)
    dvc("repro", cwd=first, env=env)
    commit(first, env)
    dvc("push", cwd=first, env=env)
    assert keys(bucket, "dvc/")
    second = tmp_path / "second"
    run("git", "clone", "--quiet", str(first), str(second), cwd=tmp_path, env=env)
    dvc("pull", cwd=second, env=env)
    assert (second / "one.txt").read_text(encoding="utf-8") == "1"
    assert "up to date" in dvc("repro", cwd=second, env=env)
    assert "lectern" not in (second / ".dvc" / "config").read_text(encoding="utf-8").replace(BUCKET, "")


def test_no_log_and_no_command_line_shows_the_password(team: Team) -> None:
    with urllib.request.urlopen(f"{team.mlflow}/health", timeout=30) as reply:
        assert reply.status == 200
    processes = [psutil.Process(team.up.pid), *psutil.Process(team.up.pid).children(recursive=True)]
    assert PASSWORD not in " ".join(word for process in processes for word in process.cmdline())
    assert PASSWORD not in team.logs() + (team.folder / "up.log").read_text(encoding="utf-8")


def test_a_shared_database_requires_a_shared_place_for_artifacts(project: Path) -> None:
    shutil.copy(ROOT / "prefect.yaml", project)
    env = environment(MLFLOW_TRACKING_URI="postgresql://lectern:swordfish@db.invalid/mlflow")
    ports = ["--mlflow-port", str(free_port()), "--reports-port", str(free_port()), "--page-port", str(free_port())]
    done = run(sys.executable, "-m", "lectern", "up", *ports, cwd=project, env=env, check=False)
    assert done.returncode == 2
    assert "MLFLOW_DEFAULT_ARTIFACT_ROOT=s3://BUCKET/PATH" in done.stderr


WITHOUT_PSYCOPG2 = """
import sys
sys.modules["psycopg2"] = None
sys.argv = ["lectern", "models"]
from lectern.app import main
main()
"""


@pytest.mark.slow
def test_a_missing_database_driver_is_named_with_the_command_to_install_it(project: Path) -> None:
    env = environment(MLFLOW_TRACKING_URI="postgresql://lectern:swordfish@db.invalid/mlflow")
    done = run(sys.executable, "-c", WITHOUT_PSYCOPG2, cwd=project, env=env, check=False)
    assert done.returncode == 2
    assert "psycopg2, which is not installed. Run: pip install --no-deps -r requirements-team.txt" in done.stderr
    assert "Traceback" not in done.stderr
    assert "swordfish" not in done.stderr
