"""A version becomes the champion by the flow: if the rules are kept, and if a person says yes where one is asked."""

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
from pipeline.registry.tracking import connect
from pipeline.registry.versions import trail
from tests.conftest import SUBJECTS
from tests.flows.promotable import NAME, ask_nobody, champion, register, write_splits
from tests.flows.toy_project import SERVED, PrefectServer, new_run, read, serving, state, wait_for

ROOT = Path(__file__).parents[2]
YES = {"answer": "yes", "who": "Ada", "reason": "they read well"}


@pytest.fixture
def folder(
    project: Path, prefect_server: PrefectServer, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project with a version that keeps all rules, the challenger."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_splits(examples)
    register(SUBJECTS)
    return project


@pytest.fixture
def deployment(prefect_server: PrefectServer) -> UUID:
    return promote.to_deployment("in-tests").apply()


def work(run: FlowRun) -> None:
    """What whoever serves a deployment does with a run."""
    with suppress(Pause):
        run_flow(promote, flow_run=read(run.id), parameters=run.parameters, return_type="state")


def answer(run: FlowRun, given: dict[str, str]) -> bool:
    """Presses Resume; whether Prefect takes the answer."""
    with get_client(sync_client=True) as client:
        return client.resume_flow_run(run.id, run_input=given).status.value == "ACCEPT"


def shown(run: FlowRun) -> list[str]:
    """What stands beside the run."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [str(run.id)]}}}
    with get_client(sync_client=True) as client:
        return [found["data"] for found in client.request("POST", "/artifacts/filter", json=wanted).json()]


def form(run: FlowRun) -> tuple[str, dict[str, Any]]:
    """The text of the page on which a person answers, and the fields of its form."""
    with get_client(sync_client=True) as client:
        keys = read(run.id).state.state_details.run_input_keyset
        text, schema = (
            json.loads(client.read_flow_run_input(run.id, keys[part])) for part in ("description", "schema")
        )
    return text, schema["properties"]


def test_the_version_that_a_person_said_yes_to_becomes_champion(folder: Path, deployment: UUID):
    work(run := new_run(deployment, because="for the new course"))
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
    assert [text in told for told in shown(run)] == [True]

    register([])  # the challenger is another one, when the answer comes
    assert answer(run, YES)
    work(run)
    assert state(run).message == f"Version 1 of '{NAME}' is now the champion. There was no champion before."
    assert champion() == "1"
    assert [(move.who, move.because) for move in trail(connect(), NAME)] == [
        ("Ada", "for the new course; they read well")
    ]


def test_who_is_to_answer_is_told_and_after_a_no_nothing_has_moved(
    folder: Path, deployment: UUID, channel: SimpleNamespace
):
    work(run := new_run(deployment))
    (told,) = channel.told
    assert told["subject"] == f"Shall version 1 of '{NAME}' become the champion?"
    assert str(run.id) in told["body"]
    assert answer(run, {**YES, "answer": "no", "reason": "too long"})
    work(run)
    assert state(run).is_cancelled()
    assert state(run).message == "Ada said no; the champion stays. too long"
    assert champion() is None


def test_when_nobody_answers_in_time_nothing_moves_and_nobody_can_any_more(folder: Path, deployment: UUID):
    work(run := new_run(deployment, hours=0.0001))
    wait_for(lambda: state(run).is_failed())
    assert "never resumed" in state(run).message
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, AwaitingRetry(), force=True)  # somebody presses Retry
    work(run)
    assert "Start a new one" in state(run).message
    assert champion() is None


def test_where_the_rules_are_not_kept_nobody_is_asked(folder: Path, deployment: UUID):
    register([])
    work(run := new_run(deployment))
    assert state(run).is_failed()
    assert "Version 2" in state(run).message
    assert "beats the best baseline" in state(run).message
    assert "**failed**" in shown(run)[0]
    assert champion() is None


def test_by_the_gate_alone_nobody_is_asked(folder: Path):
    ask_nobody()
    register([])
    assert "beats the best baseline" in promote(return_state=True).message
    assert champion() is None
    assert promote(version=1, because="knows all", return_state=True).is_completed()
    assert champion() == "1"
    assert [move.because for move in trail(connect(), NAME)] == ["knows all"]
    assert "already is the champion" in promote(version=1, return_state=True).message
    assert "no version 9" in promote(version=9, return_state=True).message


def attempts(state: State) -> dict[str, int]:
    """How often each task of a run was tried."""
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return {task.name: task.run_count for task in client.read_task_runs(flow_run_filter=this_run)}


def test_a_tracking_server_that_is_away_for_a_moment_costs_an_attempt_and_a_refusal_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    ask_nobody()
    answers = [TemporaryFailure("MLflow does not answer.")]

    def at_first_away() -> MlflowClient:
        if answers:
            raise answers.pop()
        return connect()

    monkeypatch.setattr("flows.promote.connect", at_first_away)
    ended = promote(return_state=True)
    assert ended.is_completed(), ended.message
    assert champion() == "1"
    wait_for(lambda: attempts(ended) == {"promote": 2})

    register([])
    ended = promote(return_state=True)
    assert "beats the best baseline" in ended.message
    wait_for(lambda: attempts(ended) == {"promote": 1})


def test_a_promotion_whose_last_answer_was_lost_is_not_made_twice(folder: Path, monkeypatch: pytest.MonkeyPatch):
    ask_nobody()
    tag = MlflowClient.set_model_version_tag
    lost = [MlflowException("no answer", error_code=TEMPORARILY_UNAVAILABLE)]

    def at_first_lost(client: MlflowClient, *words: str) -> None:
        if lost:
            raise lost.pop()
        tag(client, *words)

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", at_first_lost)
    ended = promote(return_state=True)
    assert ended.is_completed(), ended.message
    wait_for(lambda: attempts(ended) == {"promote": 2})
    [move] = trail(connect(), NAME)
    assert move.version == champion() == "1"
    assert f"promote.{move.when}" in connect().get_model_version(NAME, "1").tags


NOTE_THE_DEVICES = """
import os, pathlib
pathlib.Path({note!r}).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
"""


def test_a_version_is_judged_on_a_gpu_that_no_training_is_using(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ask_nobody()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    register(SUBJECTS, first=NOTE_THE_DEVICES.format(note=str(note := tmp_path / "devices")))
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
def test_a_run_that_could_not_wait_says_how_to_start_one_that_can():
    assert "promote/by-hand" in promote(return_state=True).message


@pytest.mark.parametrize("wrong", [{"version": 0}, {"version": "newest"}, {"because": "x" * 501}, {"hours": 0}])
def test_a_wrong_value_is_refused_before_a_run_starts(wrong: dict[str, object], deployment: UUID):
    with pytest.raises(PrefectHTTPStatusError, match="409"):
        new_run(deployment, **wrong)


def test_the_form_explains_every_parameter_and_fills_in_what_it_can(deployment: UUID):
    with get_client(sync_client=True) as client:
        fields = client.read_deployment(deployment).parameter_openapi_schema["properties"]
    assert {name: field.get("default") for name, field in fields.items()} == {
        "version": None,
        "because": "",
        "hours": 24,
    }
    assert all(field["description"] for field in fields.values())


@pytest.mark.hard
def test_a_run_waits_though_what_serves_it_is_stopped_meanwhile(folder: Path):
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
