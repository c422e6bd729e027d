"""Each metric is logged exactly once, even if the tracking server or the training is interrupted."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from transformers import TrainerCallback

from flows.services.service import free_port
from lectern.app import main
from pipeline.registry import outages
from pipeline.registry.tracking import connect
from pipeline.registry.training_log import LogToMlflow
from pipeline.stages import predict as predict_stage
from pipeline.stages import score as score_stage
from pipeline.stages import train as train_stage
from tests.registry.server import TrackingServer
from tests.training.small import fill_project, mlflow_runs, train

EPOCHS = 12
DEADLINE = 120


@pytest.fixture
def server(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrackingServer]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = TrackingServer(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    server.start()
    yield server
    server.kill()


def histories(client: MlflowClient, run_id: str) -> dict[str, list[int]]:
    """The steps of each metric, in order."""
    names = client.get_run(run_id).data.metrics
    return {name: sorted(metric.step for metric in client.get_metric_history(run_id, name)) for name in names}


def assert_whole(found: dict[str, list[int]], epochs: int, steps: int) -> None:
    assert found["train_loss"] == [*range(1, steps + 1)]
    each_epoch = [(epoch + 1) * steps // epochs for epoch in range(epochs)]
    assert found["validation_loss"] == found["validation_rouge1"] == each_epoch


class Outage(TrainerCallback):
    """The server is gone after the third step, and back once the training is done."""

    def __init__(self, server: TrackingServer) -> None:
        self._server = server
        self.back = threading.Thread(target=server.start)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            self._server.kill()

    def on_train_end(self, args, state, control, **kwargs):
        self.back.start()


@pytest.mark.slow
def test_every_metric_is_logged_after_an_outage_of_the_server(
    server: TrackingServer, project: Path, examples: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    run = client.create_run(client.get_experiment_by_name("lectern").experiment_id)
    outage = Outage(server)
    curves, _ = train(examples, project, callbacks=(outage, LogToMlflow(client, run.info.run_id)), epochs=EPOCHS)
    outage.back.join()
    assert len(curves) == EPOCHS
    assert "The training continues" in caplog.text
    assert_whole(histories(client, run.info.run_id), EPOCHS, steps=EPOCHS * 4)


@pytest.mark.slow
def test_a_finished_evaluation_waits_for_the_server(
    server: TrackingServer,
    project: Path,
    examples: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill_project(project, examples, epochs=1)
    train_stage.run("bart-tiny")
    predict_stage.run("bart-tiny")
    back, write_results = threading.Thread(target=server.start), score_stage.write_results

    def as_the_server_goes(*words: object, **named: object) -> object:
        server.kill()
        back.start()
        return write_results(*words, **named)

    monkeypatch.setattr(score_stage, "write_results", as_the_server_goes)
    score_stage.run("bart-tiny")
    back.join()
    assert "The evaluation waits" in caplog.text
    client = MlflowClient()
    (run,) = mlflow_runs(client)
    assert {"validation.rouge1", "test.rouge1"} <= run.data.metrics.keys()


@pytest.mark.slow
def test_scores_are_logged_once_if_their_table_failed_at_first(
    project: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_project(project, examples, epochs=1)
    train_stage.run("bart-tiny")
    log_text, refused = MlflowClient.log_text, [OSError(errno.ENOSPC, "No space left on device")]

    def full_at_first(client: MlflowClient, *words: str) -> None:
        if refused:
            raise refused.pop()
        log_text(client, *words)

    monkeypatch.setattr(MlflowClient, "log_text", full_at_first)
    predict_stage.run("bart-tiny")
    score_stage.run("bart-tiny")
    client = MlflowClient()
    (run,) = mlflow_runs(client)
    assert histories(client, run.info.run_id)["test.rouge1"] == [0]


def run_train_stage(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the exit code of `lectern train bart-tiny`."""
    monkeypatch.setattr(sys, "argv", ["lectern", "train", "bart-tiny"])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


@pytest.mark.hard
def test_a_training_without_a_server_exits_with_75_and_the_next_one_logs_everything(
    server: TrackingServer,
    project: Path,
    examples: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill_project(project, examples, epochs=EPOCHS, early_stopping=0, batch_size=4)
    monkeypatch.setattr(outages, "PATIENCE", 0.0)

    def kill_after_an_epoch() -> None:
        while not [*project.glob(".lectern/checkpoints/*/checkpoint-*/trainer_state.json")]:
            time.sleep(0.01)
        server.kill()

    killer = threading.Thread(target=kill_after_an_epoch, daemon=True)
    killer.start()
    assert run_train_stage(monkeypatch) == 75
    killer.join(DEADLINE)
    said = capsys.readouterr().err
    assert f"MLflow at {server.url} does not answer" in said
    assert "Traceback" not in said
    server.start()
    assert run_train_stage(monkeypatch) == 0
    client = MlflowClient()
    (run,) = mlflow_runs(client)
    assert run.info.status == "FINISHED"
    assert_whole(histories(client, run.info.run_id), EPOCHS, steps=EPOCHS * 4)


def test_the_message_about_a_server_hides_its_password(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://lectern:swordfish@127.0.0.1:{free_port()}")
    monkeypatch.setattr(sys, "argv", ["lectern", "models"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 75
    assert "http://lectern:***@127.0.0.1" in said
    assert "swordfish" not in said
