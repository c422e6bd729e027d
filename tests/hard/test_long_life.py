"""A project that has been run for years: what it takes of the disk, and how much there is to look through."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine, event

from pipeline.registry.lineage import md5
from pipeline.registry.tracking import connect
from pipeline.registry.versions import CHALLENGER, versions
from pipeline.upkeep.pile import size
from tests.training.small import environment

pytestmark = pytest.mark.hard

RUNS, REGISTERED_EACH, CLEANED_EACH = 50, 10, 10
MODEL_BYTES = 300_000
MONTHS = 100 * 24 * 60 * 60

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
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        opened.execute("UPDATE runs SET start_time = 1000, end_time = 1000")


def test_after_fifty_runs_the_disk_holds_what_is_registered_or_recent_and_no_more(project: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    _run("dvc", "init", "--quiet")
    Path("dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    client = connect()
    client.create_registered_model("lectern")
    asked: list[int] = []
    lines_of_lock: list[int] = []
    for number in range(1, RUNS + 1):
        Path("source.txt").write_text(f"{number}\n", encoding="utf-8")
        _run("dvc", "repro", "--quiet")
        _log_training(number)
        if number % REGISTERED_EACH == 0:
            _register(client, number)
            with _statements() as statements:
                assert len(versions(client, "lectern")) == number // REGISTERED_EACH
            asked.append(len(statements))
        if number % CLEANED_EACH == 0:
            _months_pass()
            _old(project / "mlflow.db")
            _run("flows.clean", "--yes")
            registered = number // REGISTERED_EACH
            # A split and a model each, which is a file and a folder's list; and what DVC notes of the stages.
            assert size([Path(".dvc/cache")]) < registered * (MODEL_BYTES + 20_000) + MODEL_BYTES
            assert size([Path("mlartifacts")]) == 0
            lines_of_lock.append(len(Path("dvc.lock").read_text(encoding="utf-8").splitlines()))
            print(f"{number} runs: {size([Path('.dvc')]):,} bytes in .dvc", flush=True)
    # However many versions there are, to list them asks as much; and a run with nothing to do has as much to look at.
    assert len(set(asked)) == 1, asked
    assert len(set(lines_of_lock)) == 1, lines_of_lock
    assert "up to date" in _run("dvc", "repro")
    assert "Nothing is to go." in _run("flows.clean")
    assert Path("ran.txt").read_text(encoding="utf-8").count("train") == RUNS


def test_of_more_versions_than_fit_on_a_page_none_is_overlooked(project: Path) -> None:
    client = connect()
    client.create_registered_model("lectern")
    for number in range(1, 1004):
        client.create_model_version("lectern", f"elsewhere/{number}")
    assert [int(version.version) for version, _ in versions(client, "lectern")] == [*range(1003, 0, -1)]
