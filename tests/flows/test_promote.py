"""A version becomes the champion by the flow: when the gate lets it pass, and when a person says yes."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from prefect import get_client
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.flow_runs import resume_flow_run
from toy_project import wait_for

from flows.promote import promote
from flows.watch import watch
from pipeline.registry.tracking import connect
from pipeline.registry.versions import CHALLENGER, CHAMPION, trail
from pipeline.settings import set_params

ROOT = Path(__file__).parents[2]
NAME = "lectern"

# It knows what a lecture is about; or it does not.
MODEL = """
import pandas as pd
from mlflow import models, pyfunc
class Model(pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        titles = [next((f"Why {s} matter" for s in SUBJECTS if s in text.lower()), "Title") for text in model_input]
        return pd.DataFrame({"title": titles, "candidates": [[title] for title in titles]})
models.set_model(Model())
"""


@pytest.fixture
def client(
    prefect_server: object, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MlflowClient:
    """A project with a version that knows all titles, 1, and one that knows none, 2, the challenger."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    Path("data/splits").mkdir(parents=True)
    for split in ("train", "test"):
        examples[examples["lesson_num"] == "1"].to_parquet(f"data/splits/{split}.parquet")
    client = connect()
    subjects = [title.split()[1] for title in examples["title"].unique()]
    for known in (subjects, []):
        code = tmp_path / "model.py"
        code.write_text(MODEL.replace("SUBJECTS", repr(known)), encoding="utf-8")
        mlflow.pyfunc.log_model(name="model", python_model=str(code), pip_requirements=[], registered_model_name=NAME)
    client.set_registered_model_alias(NAME, CHALLENGER, "2")
    return client


def champion(client: MlflowClient) -> str | None:
    version = client.get_registered_model(NAME).aliases.get(CHAMPION)
    return str(version) if version else None


def ask_nobody() -> None:
    set_params(["promote"], {"approval": "gate"})


def test_where_nobody_is_asked_the_gate_decides(client: MlflowClient) -> None:
    ask_nobody()
    state = promote(return_state=True)
    assert state.is_failed()
    assert "beats the best baseline" in state.message
    assert champion(client) is None
    state = promote(version=1, because="knows them", return_state=True)
    assert state.is_completed(), state.message
    assert champion(client) == "1"
    assert [move.because for move in trail(client, NAME)] == ["knows them"]
    wait_for(lambda: promotions_told() == [f"lectern.model.{NAME}"])


def promotions_told() -> list[str]:
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/events/filter", json={"filter": {"event": {"name": ["lectern.promoted"]}}})
        return [event["resource"]["prefect.resource.id"] for event in found.json()["events"]]


@pytest.mark.parametrize(("answer", "wanted"), [(True, "1"), (False, None)])
def test_a_person_decides_once_the_gate_lets_it_pass(client: MlflowClient, answer: bool, wanted: str | None) -> None:
    thread = threading.Thread(target=answer_the_paused, args=(answer,))
    thread.start()
    state = promote(version=1, return_state=True)
    thread.join()
    assert champion(client) == wanted
    assert state.is_completed() if answer else state.is_cancelled()
    assert [move.because for move in trail(client, NAME)] == (["a person said so"] if answer else [])


def answer_the_paused(answer: bool) -> None:
    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    with get_client(sync_client=True) as client:
        wait_for(lambda: client.read_flow_runs(flow_run_filter=paused))
        run = client.read_flow_runs(flow_run_filter=paused)[0]
    resume_flow_run(run.id, run_input={"promote": answer, "because": "a person said so"})


def test_when_nobody_answers_nothing_moves(client: MlflowClient) -> None:
    state = promote(version=1, hours=0.001, return_state=True)
    assert state.is_failed()
    assert "never resumed" in state.message
    assert champion(client) is None


def test_a_version_that_is_not_there_fails_the_run_with_its_number(client: MlflowClient) -> None:
    assert "no version 9" in promote(version=9, return_state=True).message


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was told."""
    told: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", told
        server.shutdown()


def test_a_failure_is_told_to_whom_the_operator_named(
    client: MlflowClient, webhook: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, told = webhook
    block = CustomWebhookNotificationBlock(
        name="ours", url=address, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    block.save("ours", overwrite=True)
    monkeypatch.setenv("LECTERN_NOTIFY", "custom-webhook/ours")
    promote(version=9, return_state=True)
    (message,) = map(json.loads, told)
    assert message["subject"].startswith("promote ")
    assert "no version 9" in message["body"]


def test_a_channel_that_does_not_work_harms_nothing(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LECTERN_NOTIFY", "custom-webhook/nobody")
    assert "no version 9" in promote(version=9, return_state=True).message
    set_params(["ingest"], {"workbook": "none.xlsx"})
    assert watch(return_state=True).is_failed()
