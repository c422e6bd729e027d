"""The MLflow runs that `lectern clean` removes, and their files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.files import write_json, write_text
from pipeline.maintenance.runs import RunFacts, find_tracked, unneeded_runs
from pipeline.maintenance.version_needs import all_versions, named_by
from pipeline.registry.tracking import EXPERIMENT, connect

IDS = [f"run-{n}" for n in range(6)]
DAY = 24 * 60 * 60.0
FACTS = st.builds(
    RunFacts,
    run_id=st.sampled_from(IDS),
    parent=st.none() | st.sampled_from([*IDS, "unknown"]),
    running=st.booleans(),
    deleted=st.booleans(),
    last=st.floats(0, 100),
)
RUNS = st.lists(FACTS, unique_by=lambda run: run.run_id)


EACH_OTHERS_PARENT = [
    RunFacts("run-1", parent="run-2", running=False, deleted=False, last=0),
    RunFacts("run-2", parent="run-1", running=False, deleted=False, last=0),
]


@example(EACH_OTHERS_PARENT, frozenset({"run-1"}), 1)
@given(RUNS, st.frozensets(st.sampled_from(IDS)), st.floats(0, 100))
def test_a_named_run_stays_with_its_parents_and_children(
    runs: list[RunFacts], named: frozenset[str], before: float
) -> None:
    going = set(unneeded_runs(runs, named, before))
    assert not going & named
    for run in runs:
        if run.run_id in named:
            assert run.parent not in going
        if run.parent in named and run.parent in {other.run_id for other in runs}:
            assert run.run_id not in going


@given(RUNS, st.frozensets(st.sampled_from(IDS)), st.floats(0, 100))
def test_running_and_recent_runs_stay_unless_deleted(
    runs: list[RunFacts], named: frozenset[str], before: float
) -> None:
    going = set(unneeded_runs(runs, named, before))
    assert all(run.deleted or not (run.running or run.last >= before) for run in runs if run.run_id in going)


@pytest.fixture
def client(project: Path) -> MlflowClient:
    return connect()


def _run(
    client: MlflowClient, name: str, *, days_ago: float = 40, parent: str | None = None, ended: bool = True
) -> str:
    """A run with an artifact, which began and ended so long ago."""
    when = int((time.time() - days_ago * DAY) * 1000)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    tags = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
    run_id = client.create_run(experiment, start_time=when, run_name=name, tags=tags).info.run_id
    client.log_text(run_id, name, "said.txt")
    if ended:
        client.set_terminated(run_id, end_time=when)
    return run_id


def _left(client: MlflowClient) -> set[str]:
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    found = client.search_runs([experiment], run_view_type=ViewType.ALL)
    assert {run.info.run_name for run in found} == {path.read_text() for path in Path("mlartifacts").rglob("said.txt")}
    return {run.info.run_name for run in found}


def _clean(client: MlflowClient) -> int:
    piles = find_tracked(client, named_by(all_versions(client)), time.time() - 30 * DAY).removable
    for pile in piles:
        pile.remove()
    return sum(pile.count for pile in piles)


def test_old_and_deleted_runs_are_removed_with_their_artifacts(
    client: MlflowClient,
) -> None:
    search = _run(client, "search of the version")
    version = _run(client, "version", parent=search)
    _run(client, "other trial", parent=search)
    client.create_registered_model("titles")
    client.create_model_version("titles", "elsewhere", run_id=version)
    write_json(Path("reports/training/t5-tiny/run.json"), {"run_id": _run(client, "reported")})
    write_text(Path("reports/search/t5-tiny.yaml"), f"run_id: {_run(client, 'suggested')}\n")
    client.delete_run(_run(client, "deleted", days_ago=1))
    client.delete_run(version)
    _run(client, "old")
    _run(client, "recent", days_ago=10)
    _run(client, "running", ended=False)
    assert _clean(client) == 2
    assert _left(client) == {
        "search of the version",
        "version",
        "other trial",
        "reported",
        "suggested",
        "recent",
        "running",
    }
    assert _clean(client) == 0


def test_an_interrupted_removal_is_completed_by_the_next_one(client: MlflowClient) -> None:
    for name in ("first", "second"):
        _run(client, name)
    half = next(Path("mlartifacts").rglob("said.txt"))
    half.unlink()
    half.parent.rmdir()
    assert _clean(client) == 2
    assert _left(client) == set()


def test_runs_of_other_experiments_are_not_removed(client: MlflowClient) -> None:
    other = client.create_experiment("other")
    run_id = client.create_run(other, start_time=0).info.run_id
    client.delete_run(run_id)
    assert _clean(client) == 0
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
