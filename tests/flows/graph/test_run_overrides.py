"""What a run is asked for holds for this run alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError

from flows.graph.run_overrides import asked
from flows.train import train
from pipeline.errors import UsageError
from tests.flows.toy_project import MakeProject, dvc, wait_for

pytestmark = pytest.mark.usefixtures("prefect_server")

PARAMS = """
# by hand
contestants: [bart-tiny]
train: {epochs: 2}
models:
  t5-tiny: &shared {checkpoint: scratch}
  bart-tiny: *shared
  smollm2-zero-shot: {checkpoint: scratch, train: {epochs: 0}}
ingest: {workbook: data/lessons.xlsx}
"""


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    """A project whose trainings write down the settings that they find, and take as long as the file `seconds` says."""
    folder = make_project("""
        stages:
          train:
            foreach: ${contestants}
            do:
              cmd: cp params.yaml trained-${item} && sleep $(cat seconds)
              params: ["models.${item}", train]
              outs:
                - trained-${item}
    """)
    (folder / "seconds").write_text("0")
    (folder / "params.yaml").write_text(PARAMS)
    return folder


def epochs_of(folder: Path, model: str) -> int:
    params = yaml.safe_load((folder / f"trained-{model}").read_text())
    return params["models"][model].get("train", params["train"])["epochs"]


def test_models_and_epochs_hold_for_this_run_alone(folder: Path):
    dvc("repro", "--quiet")
    state = train(models=["t5-tiny", "smollm2-zero-shot"], epochs=5, return_state=True)
    assert state.is_completed(), state.message
    assert epochs_of(folder, "t5-tiny") == 5
    assert epochs_of(folder, "smollm2-zero-shot") == 0
    assert (folder / "params.yaml").read_text() == PARAMS
    assert train(return_state=True).message == "Nothing was stale."
    assert epochs_of(folder, "bart-tiny") == 2


def test_after_a_kill_the_next_run_finds_the_params_as_they_were(folder: Path):
    (folder / "seconds").write_text("300")
    _kill_while_it_trains(folder)
    assert (folder / "params.yaml").read_text() != PARAMS
    (folder / "seconds").write_text("0")
    assert train(return_state=True).is_completed()
    assert (folder / "params.yaml").read_text() == PARAMS


def test_what_was_edited_after_a_kill_stays(folder: Path):
    (folder / "seconds").write_text("300")
    _kill_while_it_trains(folder)
    (folder / "seconds").write_text("0")
    edited = PARAMS.replace("by hand", "by another hand")
    (folder / "params.yaml").write_text(edited)
    assert train(return_state=True).is_completed()
    assert (folder / "params.yaml").read_text() == edited


def _kill_while_it_trains(folder: Path) -> None:
    command = "from flows.train import train; train(models=['t5-tiny'], epochs=7)"
    run = subprocess.Popen([sys.executable, "-c", command])
    wait_for((folder / "trained-t5-tiny").exists)
    run.kill()
    run.wait()


def test_a_workbook_that_is_not_there_fails_the_run_with_its_name(folder: Path):
    state = train(workbook="nowhere/lessons.xlsx", return_state=True)
    assert state.is_failed()
    assert "nowhere/lessons.xlsx" in state.message
    assert (folder / "params.yaml").read_text() == PARAMS


def test_a_contestant_without_an_entry_fails_the_run_with_its_name(folder: Path):
    (folder / "params.yaml").write_text(PARAMS.replace("[bart-tiny]", "[bart-tniy]"))
    state = train(epochs=3, return_state=True)
    assert state.is_failed()
    assert "has no model bart-tniy; it has t5-tiny, bart-tiny, smollm2-zero-shot" in state.message


def test_sections_that_are_empty_are_as_good_as_none():
    empty = {"models": {"ours": {"train": None}}, "contestants": ["ours"], "train": None, "ingest": None}
    changed = asked(empty, None, 3, "lessons.xlsx")
    assert changed["models"]["ours"]["train"] == {"epochs": 3}
    assert changed["ingest"] == {"workbook": "lessons.xlsx"}
    assert asked({"models": {"ours": None}, "contestants": ["ours"]}, None, 3, None)["models"]["ours"]
    with pytest.raises(UsageError, match="has no model 1, other; it has ours"):
        asked({"models": {"ours": None}, "contestants": [1, "other"]}, None, 3, None)
    with pytest.raises(UsageError, match="has no model ours"):
        asked({"models": None, "contestants": None}, ["ours"], None, None)


def test_a_tracking_database_that_is_damaged_does_not_hide_how_the_stages_went(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (run := folder / "reports/training/bart-tiny/run.json").parent.mkdir(parents=True)
    run.write_text('{"run_id": "x"}')
    (folder / "damaged.db").write_text("no database, however long one looks at it" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/damaged.db")
    state = train(return_state=True)
    assert state.is_completed(), state.message
    assert state.message == "1 stages brought up to date."


def test_the_run_is_named_after_commit_and_workbook(folder: Path):
    subprocess.run(["git", "add", "params.yaml"], check=True)
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"], check=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    assert name_of(train(return_state=True)) == f"{commit.stdout.strip()} lessons.xlsx"
    assert name_of(train(workbook="other.xlsx", return_state=True)) == f"{commit.stdout.strip()} other.xlsx"


def name_of(state: State) -> str:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id).name


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"epochs": "many"}, {"models": ["no-such-model"]}])
def test_a_wrong_value_is_refused_before_a_run_starts(folder: Path, wrong: dict[str, object]):
    deployment = train.to_deployment("asked").apply()
    with get_client(sync_client=True) as client, pytest.raises(PrefectHTTPStatusError) as refused:
        client.create_flow_run_from_deployment(deployment, parameters=wrong)
    assert refused.value.response.status_code in (409, 422)


def test_the_form_describes_each_parameter_and_offers_the_models(folder: Path):
    properties = train.parameters.properties
    assert all(properties[name]["description"] for name in ("models", "epochs", "workbook"))
    assert "t5-tiny" in json.dumps(properties["models"])
