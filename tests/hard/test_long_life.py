"""A project that has been run for years: what it takes of the disk, and how long it takes to look through."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import mlflow
import psutil
import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine, event

from flows.services.prefect_server import api_url, prefect_service
from flows.services.service import free_port
from pipeline.maintenance.removable import size
from pipeline.registry.lineage import md5
from pipeline.registry.registry_database import CHALLENGER
from pipeline.registry.tracking import connect
from pipeline.registry.versions import list_versions
from tests.command import run_module
from tests.conftest import ROOT
from tests.training.small import environment

pytestmark = pytest.mark.hard

RUNS, REGISTERED_EACH, CLEANED_EACH = 50, 10, 10
MODEL_BYTES = 300_000
MONTHS = 100 * 24 * 60 * 60
SLOWER = 2.0
"""How often the first time is more than two programs make of it that share a processor."""
BYTES_A_RUN = 150_000
"""What Prefect may keep of a flow run, until it removes it after 90 days."""

PIPELINE = f"""
stages:
  split:
    cmd: cp source.txt split.txt
    deps: [source.txt]
    outs: [split.txt]
  train:
    cmd: mkdir -p model && (cat split.txt; head -c {MODEL_BYTES} /dev/zero) > model/weights && echo train >> ran.txt
    deps: [split.txt]
    outs: [model]
"""


def _run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Took(NamedTuple):
    """Seconds by the clock, and of the processors: those do not grow where the machine has other work."""

    clock: float
    processor: float


class Look(NamedTuple):
    """What an operator waits for, and the bytes of Prefect's database."""

    no_op: Took
    models: Took
    prefect: int


@pytest.fixture
def reporting(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flow runs report to a Prefect server that the project has, as with `lectern up`."""
    shutil.copy(ROOT / "prefect.toml", project)
    port = free_port()
    with prefect_service(port) as server:
        server.wait_until_healthy()
        monkeypatch.setenv("PREFECT_API_URL", api_url(port))
        yield


def _flow() -> None:
    """Runs the flow in a process that has its libraries already, or fifty of them would take too long."""
    done = run_module("lectern", "run", cwd=Path.cwd(), env=environment())
    assert done.returncode == 0, done.stdout + done.stderr


def _look() -> Look:
    found = Look(_took("lectern", "run"), _took("lectern", "models"), _asked_of_prefect(PAGES))
    print(found, flush=True)
    return found


def _took(*words: str) -> Took:
    """Of a process that is started as a person does, and of Prefect's server meanwhile: the median of three."""
    clocks, processors = zip(*(_timed(*words) for _ in range(3)), strict=True)
    return Took(round(median(clocks), 2), round(median(processors), 2))


def _timed(*words: str) -> Took:
    clock, processor = time.monotonic(), _processor_seconds()
    _run(*words)
    return Took(time.monotonic() - clock, _processor_seconds() - processor)


def _processor_seconds() -> float:
    """Of all that this process has started, whether it has ended or not."""
    ours = psutil.Process()
    ended = ours.cpu_times()
    running = [process.cpu_times() for process in ours.children(recursive=True)]
    return sum(times.user + times.system for times in running) + sum(
        times.children_user + times.children_system for times in (ended, *running)
    )


PAGES = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
COMPLETED = "SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'"


def _asked_of_prefect(query: str) -> int:
    with closing(sqlite3.connect(".prefect/prefect.db", timeout=60)) as opened:
        ((found,),) = opened.execute(query)
        return int(found)


def _months_pass() -> None:
    for path in (*Path(".dvc/cache").rglob("*"), *Path(".lectern").rglob("*")):
        then = path.stat().st_mtime - MONTHS
        os.utime(path, (then, then))


def _log_training(number: int) -> None:
    with mlflow.start_run(run_name=f"training {number}", tags={"model.md5": md5(Path("model"))}):
        mlflow.log_metric("loss", 1 / number)
        mlflow.log_text("x" * 50_000, "predictions.json")


@contextmanager
def _statements() -> Iterator[list[str]]:
    """What is asked of any database in the block."""
    asked: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _register(client: MlflowClient, number: int) -> None:
    tags = {"data.train.md5": md5(Path("split.txt")), "model.md5": md5(Path("model")), "git.commit": "none"}
    version = client.create_model_version("lectern", f"elsewhere/{number}", tags=tags)
    client.set_registered_model_alias("lectern", CHALLENGER, version.version)


def _old(database: Path) -> None:
    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        opened.execute("UPDATE runs SET start_time = 1000, end_time = 1000")


@pytest.mark.usefixtures("reporting")
def test_after_fifty_runs_the_disk_holds_what_is_registered_or_recent_and_nothing_has_become_slow(
    project: Path,
) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    _run("dvc", "init", "--quiet")
    Path("dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    client = connect()
    client.create_registered_model("lectern")
    asked: list[int] = []
    lines_of_lock: list[int] = []
    looks: list[Look] = []
    for number in range(1, RUNS + 1):
        Path("source.txt").write_text(f"{number}\n", encoding="utf-8")
        _flow()
        _log_training(number)
        registered = (number - 1) // REGISTERED_EACH + 1
        if number % REGISTERED_EACH == 1:
            _register(client, number)
            with _statements() as statements:
                assert len(list_versions(client, "lectern")) == registered
            asked.append(len(statements))
        if number in (1, RUNS):
            looks.append(_look())
        if number % CLEANED_EACH == 0:
            _months_pass()
            _old(project / "mlflow.db")
            _run("lectern", "clean", "--yes")
            # A split and a model each, which is a file and a folder's list; and what DVC notes of the stages.
            assert size([Path(".dvc/cache")]) < (registered + 1) * (MODEL_BYTES + 20_000)
            assert size([Path("mlartifacts")]) == 0
            lines_of_lock.append(len(Path("dvc.lock").read_text(encoding="utf-8").splitlines()))
            print(f"{number} runs: {size([Path('.dvc')]):,} bytes in .dvc", flush=True)
    # However many versions there are, to list them asks as much; and a run with nothing to do has as much to look at.
    assert len(set(asked)) == 1, asked
    assert len(set(lines_of_lock)) == 1, lines_of_lock
    first, last = looks
    assert last.no_op.processor < SLOWER * first.no_op.processor
    assert last.models.processor < SLOWER * first.models.processor
    assert _asked_of_prefect(COMPLETED) == RUNS  # with nothing stale, no flow runs
    assert last.prefect - first.prefect < BYTES_A_RUN * RUNS
    assert "up to date" in _run("dvc", "repro")
    assert "Nothing to remove." in _run("lectern", "clean")
    assert Path("ran.txt").read_text(encoding="utf-8").count("train") == RUNS


def test_of_more_versions_than_fit_on_a_page_none_is_overlooked(project: Path) -> None:
    client = connect()
    client.create_registered_model("lectern")
    for number in range(1, 1004):
        client.create_model_version("lectern", f"elsewhere/{number}")
    assert [int(version.version) for version, _ in list_versions(client, "lectern")] == [*range(1003, 0, -1)]
