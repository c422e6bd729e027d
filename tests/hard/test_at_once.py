"""Several things at once in one project. tests/flows, tests/team and tests/registry hold others of this kind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from flows.services.service import free_port
from pipeline.registry import promotion, registry_database, versions
from pipeline.registry.gate import Verdict
from pipeline.settings import set_params
from tests.command import lectern, start
from tests.conftest import ROOT, SUBJECTS
from tests.flows.promotable import NAME, write_splits
from tests.flows.promotable import register as register_quick
from tests.team.test_team import assert_all_logged, small_models, train_all_at_once
from tests.titles.small import register
from tests.training.small import environment, fill_project

pytestmark = pytest.mark.hard

FORCED = ("--force", "--because", "a rehearsal")
PATIENCE = 180
CROWD_PATIENCE = 900  # they take turns, and each tries one or two versions in a process of its own
WAITS = "registers or promotes a version."

SLOW_CHAIN = """
stages:
  one:
    cmd: echo one >> ran.txt && sleep 3 && cp source.txt one.txt
    deps: [source.txt]
    outs: [one.txt]
  two:
    cmd: echo two >> ran.txt && sleep 3 && cp one.txt two.txt
    deps: [one.txt]
    outs: [two.txt]
"""


def test_two_dvc_repro_at_once_do_the_work_once_and_the_second_is_told_or_waits(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(SLOW_CHAIN, encoding="utf-8")
    (tmp_path / "source.txt").write_text("1", encoding="utf-8")
    both = [
        subprocess.Popen([*dvc, "repro"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE)[0] for process in both]
    failed = [words for process, words in zip(both, said, strict=True) if process.returncode]
    assert len(failed) < 2, said
    assert all("busy" in words or "lock" in words for words in failed), said
    again = subprocess.run([*dvc, "repro"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "up to date" in again.stdout
    assert sorted((tmp_path / "ran.txt").read_text(encoding="utf-8").split()) == ["one", "two"]


def test_eight_trainings_at_once_on_a_fresh_sqlite_database_lose_no_metric(
    project: Path, examples: pd.DataFrame
) -> None:
    models = [f"bart-{number}" for number in range(1, 9)]
    small_models(project, examples, models)
    (project / "mlflow.db").unlink()
    train_all_at_once(project, environment(), models)
    assert_all_logged(project, models)


def test_a_version_is_promoted_while_a_training_logs(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, epochs=30, early_stopping=0)
    write_splits(examples)
    register_quick(SUBJECTS)
    (streams := project / "streams").mkdir()
    training = start("train", "bart-tiny", cwd=project, env=environment(), streams=streams)
    promoted = lectern("promote", "1", *FORCED, cwd=project, env=environment())
    ended = training.wait(PATIENCE)
    said = (streams / "2").read_text(encoding="utf-8")
    assert promoted.returncode == 0, promoted.stderr
    assert ended == 0, said
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    assert str(client.get_registered_model(NAME).aliases["champion"]) == "1"
    run_id = json.loads((project / "reports/training/bart-tiny/run.json").read_text(encoding="utf-8"))["run_id"]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run_id, "validation_loss")) == 30


def test_ten_promotions_and_ten_rollbacks_at_once_leave_one_champion_and_a_trail_without_gaps(
    project: Path, examples: pd.DataFrame
) -> None:
    write_splits(examples)
    for known in (SUBJECTS, SUBJECTS[:4], SUBJECTS[:2]):
        register_quick(known)
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    for number in (1, 2):  # so that there is an earlier champion
        promotion.promote(client, NAME, number, because="", judge=lambda new, _: Verdict(new.version, None, []))
    words = [("promote", str(1 + number % 3), *FORCED) for number in range(10)]
    words = [each for promotion in words for each in (promotion, ("rollback", "--because", "a rehearsal"))]
    streams = [project / f"streams-{number}" for number in range(len(words))]
    for each in streams:
        each.mkdir()
    all_of_them = [
        start(*each, cwd=project, env=environment(), streams=place) for each, place in zip(words, streams, strict=True)
    ]
    ended = [process.wait(CROWD_PATIENCE) for process in all_of_them]
    for code, each, place in zip(ended, words, streams, strict=True):
        said = (place / "2").read_text(encoding="utf-8")
        assert code in (0, 1, 75), (each, said)
        assert "Traceback" not in said, (each, said)
        if code:
            assert len([line for line in said.splitlines() if not line.endswith(WAITS)]) == 1, (each, said)
    moves = promotion.trail(client, NAME)
    [champion] = [
        version for version, aliases in versions.list_versions(client, NAME) if registry_database.CHAMPION in aliases
    ]
    assert len(moves) == 2 + ended.count(0)
    assert {move.action for move in moves[2:]} == {"promote", "rollback"}
    assert [move.before for move in moves] == [None, *(move.version for move in moves[:-1])]
    assert moves[-1].version == str(champion.version)


def test_a_rollback_under_a_server_fails_no_request(project: Path, examples: pd.DataFrame) -> None:
    set_params(["serve"], {"refresh": 0.2})
    write_splits(examples)
    for beams in (1, 2):
        register(project / "small", examples, beams=beams)
        done = lectern("promote", str(beams), *FORCED, cwd=project)
        assert done.returncode == 0, done.stderr
    port, over = free_port(), threading.Event()
    answers: list[tuple[int, str]] = []

    def ask() -> tuple[int, str]:
        body = json.dumps({"texts": ["we talk about graphs"]}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/titles", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                return reply.status, json.loads(reply.read())["version"]
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, "not up yet"

    def go_on_asking() -> None:
        while not over.is_set():
            answers.append(ask())

    def wait_for(version: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while ask() != (200, version):
            assert time.monotonic() < deadline, ask()
            time.sleep(0.2)

    server = subprocess.Popen([sys.executable, "-m", "lectern", "serve", "--port", str(port)], cwd=project)
    try:
        wait_for("lectern/2")
        crowd = [threading.Thread(target=go_on_asking) for _ in range(4)]
        for one in crowd:
            one.start()
        done = lectern("rollback", cwd=project)
        assert done.returncode == 0, done.stderr
        wait_for("lectern/1")
        over.set()
        for one in crowd:
            one.join()
    finally:
        over.set()
        server.terminate()
        server.wait(PATIENCE)
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} >= {"lectern/2"}


def test_two_whole_runs_of_the_flow_at_once_do_the_work_once(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    shutil.copy(ROOT / "prefect.toml", tmp_path)
    (tmp_path / "dvc.yaml").write_text(SLOW_CHAIN, encoding="utf-8")
    (tmp_path / "params.yaml").write_text("contestants: [one]\n", encoding="utf-8")
    (tmp_path / "source.txt").write_text("1", encoding="utf-8")
    env = {**environment(), "PREFECT_HOME": str(tmp_path / ".prefect")}
    env.pop("PREFECT_API_URL", None)
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "lectern", "run"],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert any("waiting for it to end" in words for words in said), said
    assert sorted((tmp_path / "ran.txt").read_text(encoding="utf-8").split()) == ["one", "two"]
