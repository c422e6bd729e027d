"""The flow on a Ray cluster of two nodes, each with work trees of its own; the DVC remote is a folder."""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State

from flows.train import train
from tests.flows.toy_project import MakeProject, dvc

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

# Each stage adds its name and its work tree to a file outside the repository.
GRAPH = """
    stages:
      split:
        cmd: echo split $PWD >> NOTES && cp source.txt split.txt
        deps: [source.txt]
        outs: [split.txt]
      train:
        foreach: [a, b]
        do:
          cmd: echo train-${item} $PWD >> NOTES && TRAINING && (cat split.txt; echo ${item}) > model-${item}
          deps:
            - split.txt
          outs:
            - model-${item}
          meta:
            slot: gpu
      compare:
        cmd: echo compare $PWD >> NOTES && cat model-a model-b > leaderboard.txt
        deps: [model-a, model-b]
        outs:
          - leaderboard.txt:
              cache: false
      register:
        cmd: echo register $PWD >> NOTES && cp leaderboard.txt registered.txt
        deps: [leaderboard.txt]
        outs:
          - registered.txt:
              persist: true
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of two nodes; the folder with the work trees of each node."""
    pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
    pytest.importorskip("prefect_ray", reason="needs prefect-ray: pip install -e '.[ray]'")
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("DVC_NO_ANALYTICS", "true")
        cluster = Cluster()
        for name in ("first", "second"):
            patch.setenv("LECTERN_WORK_TREES", str(folder / name))
            patch.setenv("DVC_SITE_CACHE_DIR", str(folder / name / "site"))
            cluster.add_node(num_cpus=2, object_store_memory=80_000_000, include_dashboard=False)
        cluster.wait_for_nodes()
        patch.setenv("LECTERN_RAY_ADDRESS", cluster.address)
        yield folder
        cluster.shutdown()


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *words], check=True)


@pytest.fixture
def pushed(make_project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project whose commit and DVC remote other machines reach."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("LECTERN_RAY_ADDRESS", os.environ.get("LECTERN_RAY_ADDRESS", "auto"))
    folder = make_project(GRAPH.replace("NOTES", str(tmp_path / "notes")).replace("TRAINING", "true"))
    (folder / ".gitignore").write_text(".lectern\n.prefect\nmodel-*\n*.txt\n!source.txt\n")
    (folder / "source.txt").write_text("source\n")
    dvc("remote", "add", "--default", "shared", str(tmp_path / "remote"))
    git("init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    git("remote", "add", "origin", str(tmp_path / "origin.git"))
    push()
    return folder


def replace(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(f"&& {old} &&", f"&& {new} &&"))


def push() -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", "A commit")
    git("push", "--quiet", "origin", "HEAD")


def notes(folder: Path) -> dict[str, str]:
    """The work tree of each stage. Each stage ran once."""
    lines = [line.split() for line in (folder.parent / "notes").read_text().splitlines()]
    assert max(Counter(stage for stage, _ in lines).values()) == 1, lines
    return dict(lines)


def task_states(flow_state: State) -> dict[str, str]:
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return {run.name: run.state_name for run in client.read_task_runs(flow_run_filter=this_run)}


def test_two_nodes_give_the_results_of_one_machine_and_run_each_stage_once(pushed: Path, nodes: Path):
    meet = "touch AT-${item} && timeout 60 sh -c 'until [ -e AT-a ] && [ -e AT-b ]; do sleep 0.1; done'"
    replace(pushed / "dvc.yaml", "true", meet.replace("AT", str(nodes / "at")))
    push()
    state = train(return_state=True)
    assert state.is_completed(), state.message
    ran = notes(pushed)
    assert ran.keys() == {"split", "train-a", "train-b", "compare", "register"}
    # Each training ran on a node of its own. The stage that DVC cannot restore ran here.
    assert {Path(ran[name]).relative_to(nodes).parts[0] for name in ("train-a", "train-b")} == {"first", "second"}
    assert ran["register"] == str(pushed)
    assert (pushed / "leaderboard.txt").read_text() == "source\na\nsource\nb\n"
    assert (pushed / "registered.txt").exists()
    assert set(task_states(state).values()) == {"Completed"}
    assert "up to date" in dvc("repro")
    assert notes(pushed) == ran


KILL_THE_WORKER_ONCE = """\
import pathlib, psutil, subprocess, sys
if sys.argv[1] == "b":
    sys.exit(subprocess.call([sys.executable, "refuse.py", "1", "Row 7 has no title."]))
note = pathlib.Path("DIED")
if not note.exists():
    note.touch()
    next(process for process in psutil.Process().parents() if process.name().startswith("ray::")).kill()
"""


def test_a_stage_whose_worker_died_runs_again_and_a_rejected_one_does_not(pushed: Path, nodes: Path):
    (pushed / "training.py").write_text(KILL_THE_WORKER_ONCE.replace("DIED", str(nodes / "died")))
    replace(pushed / "dvc.yaml", "true", "python training.py ${item}")
    push()
    state = train(return_state=True)
    assert state.message == "1 of 5 stages failed.\ntrain@b was refused:\n  Row 7 has no title."
    states = task_states(state)
    assert (states["train@a"], states["train@b"]) == ("Completed", "Failed")
    assert [name.rpartition("-")[0] for name, state in states.items() if state == "NotReady"] == ["compare"]
    ran = Counter(line.split()[0] for line in (pushed.parent / "notes").read_text().splitlines())
    assert ran == {"split": 1, "train-a": 2, "train-b": 1}
    # The output of the successful training is here.
    assert (pushed / "model-a").read_text() == "source\na\n"


def test_uncommitted_changes_are_refused(pushed: Path):
    (pushed / "source.txt").write_text("changed\n")
    assert_refused(train(return_state=True), "source.txt", "Commit and push")


def test_an_unpushed_commit_is_refused(pushed: Path):
    git("commit", "--quiet", "--allow-empty", "--message", "Mine alone")
    assert_refused(train(return_state=True), "Push it")


def test_a_project_without_a_shared_dvc_remote_is_refused(pushed: Path):
    dvc("remote", "remove", "shared")
    push()
    # A remote in config.local exists only in this work tree.
    dvc("remote", "add", "--local", "--default", "mine", "/tmp")
    assert_refused(train(return_state=True), "dvc remote add")


def test_a_dvc_remote_with_a_relative_path_is_refused(pushed: Path):
    dvc("remote", "modify", "shared", "url", "../elsewhere")
    push()
    assert_refused(train(return_state=True), "absolute path")


def test_a_tracking_database_in_a_file_is_refused(pushed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert_refused(train(return_state=True), "MLFLOW_TRACKING_URI", "lectern up")


def assert_refused(state: State, *words: str) -> None:
    assert state.is_failed()
    assert all(word in state.message for word in words), state.message
    assert task_states(state) == {}
