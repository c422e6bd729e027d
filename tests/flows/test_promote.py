"""The flow `promote`: a version becomes the champion if it passes the rules and, where required, a person agrees."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Pause, PrefectHTTPStatusError
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry

from flows.execution.slots import Slots, devices
from flows.promote import promote
from pipeline.errors import TemporaryFailure
from pipeline.exports.export_card import ExportCard
from pipeline.models.generation import open_titler
from pipeline.registry.promotion import trail
from pipeline.registry.tracking import connect
from pipeline.settings import set_params
from pipeline.titles.served_version import find_served_version
from tests.conftest import SUBJECTS
from tests.exports.exportable import register_small
from tests.flows.promotable import NAME, approve_by_gate, champion, register, write_splits
from tests.flows.toy_project import SERVED, PrefectServer, new_run, read, serving, state, wait_for
from tests.models.small import GREEDY

ROOT = Path(__file__).parents[2]
YES = {"answer": "yes", "who": "Ada", "reason": "they read well"}


@pytest.fixture
def folder(
    project: Path, prefect_server: PrefectServer, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project whose challenger passes all rules."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_splits(examples)
    register(SUBJECTS)
    return project


@pytest.fixture
def deployment(prefect_server: PrefectServer) -> UUID:
    return promote.to_deployment("in-tests").apply()


def execute(run: FlowRun) -> None:
    """Execute the run as a worker does."""
    with suppress(Pause):
        run_flow(promote, flow_run=read(run.id), parameters=run.parameters, return_type="state")


def answer(run: FlowRun, given: dict[str, str]) -> bool:
    """Press Resume, and return whether Prefect accepts the answer."""
    with get_client(sync_client=True) as client:
        return client.resume_flow_run(run.id, run_input=given).status.value == "ACCEPT"


def artifacts(run: FlowRun) -> list[str]:
    """Return the artifacts of the run."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [str(run.id)]}}}
    with get_client(sync_client=True) as client:
        return [found["data"] for found in client.request("POST", "/artifacts/filter", json=wanted).json()]


def form(run: FlowRun) -> tuple[str, dict[str, Any]]:
    """Return the text and the fields of the form for the answer."""
    with get_client(sync_client=True) as client:
        keys = read(run.id).state.state_details.run_input_keyset
        text, schema = (
            json.loads(client.read_flow_run_input(run.id, keys[part])) for part in ("description", "schema")
        )
    return text, schema["properties"]


def test_the_version_that_a_person_approved_becomes_champion(folder: Path, deployment: UUID):
    execute(run := new_run(deployment, because="for the new course"))
    assert state(run).name == "Suspended"
    text, schema = form(run)
    assert f"Version **1** of '{NAME}':" in text
    assert "beats the best baseline" in text
    assert "| rouge1 | 0.8 |" in text
    assert schema.keys() == YES.keys()
    assert all(field["description"] for field in schema.values())
    assert not answer(run, {**YES, "answer": "perhaps"})
    assert not answer(run, {})
    assert champion() is None
    assert [text in artifact for artifact in artifacts(run)] == [True]

    register([])  # a new challenger before the answer
    assert answer(run, YES)
    execute(run)
    promoted, why_no_export = state(run).message.split("\n", 1)
    assert promoted == f"Version 1 of '{NAME}' is now the champion. There was no champion before."
    assert "there is no export: `lectern export` failed" in why_no_export
    assert champion() == "1"
    assert [(move.who, move.because) for move in trail(connect(), NAME)] == [
        ("Ada", "for the new course; they read well")
    ]


@pytest.mark.slow
def test_operators_are_asked_and_a_no_changes_nothing(folder: Path, deployment: UUID, channel: SimpleNamespace):
    execute(run := new_run(deployment))
    (told,) = channel.told
    assert told["subject"] == f"Shall version 1 of '{NAME}' become the champion?"
    assert str(run.id) in told["body"]
    assert answer(run, {**YES, "answer": "no", "reason": "too long"})
    execute(run)
    assert state(run).is_cancelled()
    assert state(run).message == "Ada said no; the champion stays. too long"
    assert champion() is None


@pytest.mark.slow
def test_without_an_answer_in_time_the_run_fails_for_good(folder: Path, deployment: UUID):
    execute(run := new_run(deployment, hours=0.0001))
    wait_for(lambda: state(run).is_failed())
    assert "never resumed" in state(run).message
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, AwaitingRetry(), force=True)  # a user presses Retry
    execute(run)
    assert "Start a new run" in state(run).message
    assert champion() is None


@pytest.mark.slow
def test_nobody_is_asked_about_a_version_that_fails_the_rules(folder: Path, deployment: UUID):
    register([])
    execute(run := new_run(deployment))
    assert state(run).is_failed()
    assert "Version 2" in state(run).message
    assert "beats the best baseline" in state(run).message
    assert "**failed**" in artifacts(run)[0]
    assert champion() is None


def test_approval_by_the_gate_promotes_without_asking(folder: Path):
    approve_by_gate()
    register([])
    assert "beats the best baseline" in promote(return_state=True).message
    assert champion() is None
    assert promote(version=1, because="knows all", return_state=True).is_completed()
    assert champion() == "1"
    assert [move.because for move in trail(connect(), NAME)] == ["knows all"]
    assert "is already the champion" in promote(version=1, return_state=True).message
    assert "no version 9" in promote(version=9, return_state=True).message


def test_the_new_champion_writes_titles_with_an_export(
    project: Path, prefect_server: PrefectServer, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    register_small(project / "small", "t5", examples)
    titles = open_titler(project / "small", GREEDY).best_titles(examples["text"].tolist())
    write_splits(examples.assign(title=titles))
    approve_by_gate()
    set_params(["promote", "behaviour"], {"copied": 1, "repeated": 1, "agreement": 0, "different": 0, "support": 1})
    ended = promote(return_state=True)
    assert ended.message == f"Version 1 of '{NAME}' is now the champion. There was no champion before."
    export = find_served_version().export
    assert export
    assert ExportCard.read(export).version == f"{NAME}/1"


def attempts(state: State) -> dict[str, int]:
    """Return the number of attempts of each task of a run."""
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return {task.name: task.run_count for task in client.read_task_runs(flow_run_filter=this_run)}


@pytest.mark.slow
def test_a_temporary_failure_is_retried_and_a_refusal_is_not(folder: Path, monkeypatch: pytest.MonkeyPatch):
    approve_by_gate()
    answers = [TemporaryFailure("MLflow does not answer.")]

    def fail_once() -> MlflowClient:
        if answers:
            raise answers.pop()
        return connect()

    monkeypatch.setattr("flows.promote.connect", fail_once)
    ended = promote(return_state=True)
    assert ended.is_completed(), ended.message
    assert champion() == "1"
    wait_for(lambda: attempts(ended) == {"promote": 2, "export": 1})

    register([])
    ended = promote(return_state=True)
    assert "beats the best baseline" in ended.message
    wait_for(lambda: attempts(ended) == {"promote": 1})


@pytest.mark.slow
def test_a_promotion_with_a_lost_answer_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    approve_by_gate()
    tag = MlflowClient.set_model_version_tag
    lost = [MlflowException("no answer", error_code=TEMPORARILY_UNAVAILABLE)]

    def lose_once(client: MlflowClient, *words: str) -> None:
        if lost:
            raise lost.pop()
        tag(client, *words)

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", lose_once)
    ended = promote(return_state=True)
    assert ended.is_completed(), ended.message
    wait_for(lambda: attempts(ended) == {"promote": 2, "export": 1})
    [move] = trail(connect(), NAME)
    assert move.version == champion() == "1"
    assert f"promote.{move.when}" in connect().get_model_version(NAME, "1").tags


RECORD_DEVICES = """
import os, pathlib
pathlib.Path({note!r}).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
"""


@pytest.mark.slow
def test_a_version_is_judged_on_a_free_gpu(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    approve_by_gate()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    register(SUBJECTS, first=RECORD_DEVICES.format(note=str(note := tmp_path / "devices")))
    note.unlink(missing_ok=True)
    training = Slots(devices(), Event())
    training.declare()
    with ThreadPoolExecutor() as pool, training.take() as first:
        with training.take():
            run = pool.submit(promote, return_state=True)
            with pytest.raises(TimeoutError):
                run.result(timeout=10)
            assert not note.exists()
        assert run.result(timeout=120).is_completed()
    assert (first, note.read_text()) == ("3", "5")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


@pytest.mark.usefixtures("prefect_server", "project")
def test_a_run_without_a_deployment_says_how_to_start_one_that_can_wait():
    assert "promote/by-hand" in promote(return_state=True).message


@pytest.mark.parametrize("wrong", [{"version": 0}, {"version": "newest"}, {"because": "x" * 501}, {"hours": 0}])
def test_a_wrong_parameter_is_refused_before_the_run_starts(wrong: dict[str, object], deployment: UUID):
    with pytest.raises(PrefectHTTPStatusError, match="409"):
        new_run(deployment, **wrong)


def test_the_form_explains_every_parameter_and_has_defaults(deployment: UUID):
    with get_client(sync_client=True) as client:
        fields = client.read_deployment(deployment).parameter_openapi_schema["properties"]
    assert {name: field.get("default") for name, field in fields.items()} == {
        "version": None,
        "because": "",
        "hours": 24,
    }
    assert all(field["description"] for field in fields.values())


@pytest.mark.hard
def test_a_run_waits_while_the_worker_is_stopped(folder: Path):
    (folder / "prefect.yaml").write_text(SERVED.format(entrypoint="flows.promote.promote"))
    deployment = promote.to_deployment("served").apply()
    with serving():
        run = new_run(deployment)
        wait_for(lambda: state(run).name == "Suspended", seconds=120)
    assert answer(run, YES)
    with serving():
        wait_for(lambda: state(run).is_final(), seconds=120)
    assert state(run).is_completed(), state(run).message
    assert champion() == "1"
