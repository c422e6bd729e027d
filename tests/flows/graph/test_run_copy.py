"""The parameters of a run hold for that run only, and the user's files stay as they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError

from flows.graph.run_copy import RunParameters, with_parameters
from flows.train import train
from pipeline.errors import UsageError
from tests.flows.toy_project import MakeProject, dvc, wait_for

pytestmark = pytest.mark.usefixtures("prefect_server")

PARAMS = """
# by hand
contestants: [bart-tiny]
train: {epochs: 2}
models:
  smollm2: &shared {checkpoint: scratch}
  bart-tiny: *shared
  smollm2-zero-shot: {checkpoint: kept/checkpoint, train: {epochs: 0}}
ingest: {workbook: data/lessons.xlsx}
"""


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    """A project whose trainings report the settings that they find, and take the seconds of the file `seconds`."""
    folder = make_project("""
        stages:
          train:
            foreach: ${contestants}
            do:
              cmd: mkdir -p reports && cp params.yaml reports/trained-${item} && pwd >> PLACES && sleep $(cat seconds)
              params: ["models.${item}", train]
              outs:
                - reports/trained-${item}
    """)
    graph = folder / "dvc.yaml"
    graph.write_text(graph.read_text().replace("PLACES", str(folder.parent / "places")))
    (folder / "seconds").write_text("0")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / ".gitignore").write_text(".lectern\n.prefect\nreports\nkept\n")
    (folder / "kept/checkpoint").mkdir(parents=True)  # which Git ignores
    (folder / "kept/checkpoint/config.json").write_text("{}")
    return folder


def commit() -> str:
    for words in (["add", "--all"], ["commit", "--quiet", "--message", "x"]):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *words], check=True)
    return git("rev-parse", "--short", "HEAD")


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


def files(folder: Path) -> dict[str, bytes]:
    """The user's files, and the results of the last run without parameters."""
    private = {".git", ".lectern", ".dvc", ".prefect", "runs"}
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in paths if private.isdisjoint(path.relative_to(folder).parts)}


def trained(reports: Path, model: str) -> int:
    """The epochs that the training of `model` was given."""
    params = yaml.safe_load((reports / f"trained-{model}").read_text())
    return params["models"][model].get("train", params["train"])["epochs"]


@pytest.mark.slow
def test_models_and_epochs_hold_for_this_run_only(folder: Path):
    commit()
    (folder / "params.yaml").write_text(PARAMS.replace("by hand", "not committed"))
    dvc("repro", "--quiet")
    before, status = files(folder), git("status", "--short")
    state = train(models=["smollm2", "smollm2-zero-shot"], epochs=5, return_state=True)
    assert state.is_completed(), state.message
    (reports,) = (folder / "reports/runs").iterdir()
    assert trained(reports, "smollm2") == 5
    assert trained(reports, "smollm2-zero-shot") == 0
    assert files(folder) == before
    assert git("status", "--short") == status
    assert not any((folder / ".lectern/runs").glob("*"))
    assert train(return_state=True).message == "Nothing was stale."
    assert train(models=["bart-tiny"], return_state=True).message == "Nothing was stale."


@pytest.mark.slow
def test_a_repeated_run_takes_its_results_from_the_cache_of_the_project(folder: Path):
    graph = folder / "dvc.yaml"  # the run cache keeps stages with dependencies only
    graph.write_text(graph.read_text().replace("params:", "deps: [seconds]\n      params:"))
    for _ in range(2):
        assert train(models=["smollm2"], return_state=True).is_completed()
    assert len((folder.parent / "places").read_text().split()) == 1


@pytest.mark.slow
def test_after_a_kill_the_users_files_are_as_before_and_the_next_run_removes_the_copy(folder: Path):
    (folder / "seconds").write_text("300")
    before = files(folder)
    command = "from flows.train import train; train(models=['smollm2'], epochs=7)"
    run = subprocess.Popen([sys.executable, "-c", command])
    wait_for((folder.parent / "places").exists)
    place = Path((folder.parent / "places").read_text().strip())
    (place / ".lectern/checkpoints/smollm2").mkdir()
    run.kill()
    run.wait()
    assert files(folder) == before
    (folder / "seconds").write_text("0")
    assert train(return_state=True).is_completed()
    assert not place.exists()
    # The training resumes if the same run is started again.
    (kept,) = (folder / ".lectern/runs").glob("*/*/*")
    assert kept.name == "smollm2"


def test_a_missing_workbook_fails_the_run_with_its_name(folder: Path):
    state = train(workbook="nowhere/lessons.xlsx", return_state=True)
    assert state.is_failed()
    assert "nowhere/lessons.xlsx" in state.message
    assert (folder / "params.yaml").read_text() == PARAMS


def test_a_contestant_without_an_entry_fails_the_run_with_its_name(folder: Path):
    (folder / "params.yaml").write_text(PARAMS.replace("[bart-tiny]", "[bart-tniy]"))
    state = train(epochs=3, return_state=True)
    assert state.is_failed()
    assert "has no model bart-tniy; it has smollm2, bart-tiny, smollm2-zero-shot" in state.message


def test_empty_sections_of_params_are_like_missing_ones():
    empty = {"models": {"ours": {"train": None}}, "contestants": ["ours"], "train": None}
    assert with_parameters(empty, RunParameters(epochs=3))["models"]["ours"]["train"] == {"epochs": 3}
    assert with_parameters({"models": {"ours": None}, "contestants": ["ours"]}, RunParameters(epochs=3))["models"][
        "ours"
    ]
    with pytest.raises(UsageError, match="has no model 1, other; it has ours"):
        with_parameters({"models": {"ours": None}, "contestants": [1, "other"]}, RunParameters(epochs=3))
    with pytest.raises(UsageError, match="has no model ours"):
        with_parameters({"models": None, "contestants": None}, RunParameters(models=["ours"]))


def test_a_damaged_tracking_database_does_not_hide_how_the_stages_went(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (run := folder / "reports/training/bart-tiny/run.json").parent.mkdir(parents=True)
    run.write_text('{"run_id": "x"}')
    (folder / "damaged.db").write_text("no database, however long one looks at it" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/damaged.db")
    state = train(return_state=True)
    assert state.is_completed(), state.message
    assert state.message == "1 stages brought up to date."


def test_the_run_is_named_after_commit_and_workbook(folder: Path):
    revision = commit()
    assert name_of(train(return_state=True)) == f"{revision} lessons.xlsx"
    assert name_of(train(workbook="other.xlsx", return_state=True)) == f"{revision} other.xlsx"


def name_of(state: State) -> str:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id).name


def test_a_wrong_value_is_refused_before_a_run_starts(folder: Path):
    deployment = train.to_deployment("asked").apply()
    with get_client(sync_client=True) as client:
        for wrong in ({"epochs": 0}, {"epochs": "many"}, {"models": ["no-such-model"]}):
            with pytest.raises(PrefectHTTPStatusError) as refused:
                client.create_flow_run_from_deployment(deployment, parameters=wrong)
            assert refused.value.response.status_code in (409, 422), wrong


def test_the_form_describes_each_parameter_and_offers_the_models():
    properties = train.parameters.properties
    assert all(properties[name]["description"] for name in ("models", "epochs", "workbook"))
    assert "smollm2" in json.dumps(properties["models"])
