"""The Prefect server of `lectern run`: a temporary one that leaves its history, or one that goes away meanwhile."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flows.services.prefect_server import api_url, prefect_service
from flows.services.service import free_port
from tests.command import processes_in
from tests.conftest import ROOT
from tests.flows.toy_project import MakeProject, PrefectServer, dvc, wait_for

# Each stage writes down that it started, and ends when a file exists.
GRAPH = """
    stages:
      one:
        cmd: echo one >> ran.txt && until [ -e end-one ]; do sleep 0.1; done && touch one.txt
        outs: [one.txt]
      two:
        cmd: echo two >> ran.txt && until [ -e end-two ]; do sleep 0.1; done && touch two.txt
        deps: [one.txt]
        outs: [two.txt]
"""
SLOT = "        meta: {slot: gpu}\n"


@pytest.fixture
def folder(make_project: MakeProject, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a configured Prefect server, and with a database for one: a new one takes ten seconds."""
    folder = make_project(GRAPH)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / ".prefect").mkdir()
    with closing(sqlite3.connect(prefect_server.database)) as ready, closing(prefect_database(folder)) as copy:
        ready.backup(copy)
        with copy:
            copy.execute("DELETE FROM flow_run")  # those of other tests
    monkeypatch.delenv("PREFECT_API_URL")
    return folder


@pytest.fixture
def port(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Port of the configured Prefect server, on which nothing listens yet."""
    port = free_port()
    monkeypatch.setenv("PREFECT_API_URL", api_url(port))
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")  # the default keeps the client trying for a minute
    return port


@contextmanager
def team_server(port: int) -> Iterator[None]:
    with prefect_service(port) as server:
        server.wait_until_healthy()
        yield


def prefect_database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / ".prefect" / "prefect.db")


def start_run() -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "lectern", "run"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def started(folder: Path) -> list[str]:
    """The stages that have started, in order."""
    record = folder / "ran.txt"
    return record.read_text().split() if record.exists() else []


def test_files_of_the_server_are_private(prefect_server: PrefectServer):
    home = prefect_server.database.parent
    files = [path for path in home.rglob("*") if path.is_file()]
    assert prefect_server.database in files
    assert [path for path in [home, *files] if path.stat().st_mode & 0o077] == []


@pytest.mark.slow
def test_a_stopped_run_keeps_its_history_and_leaves_nothing_running(folder: Path):
    (folder / "end-one").touch()
    run = start_run()
    wait_for(lambda: started(folder) == ["one", "two"])
    run.terminate()
    run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
    with closing(prefect_database(folder)) as database:
        latest = "SELECT state_name FROM task_run WHERE name = 'one' ORDER BY created DESC LIMIT 1"
        assert database.execute(latest).fetchall() == [("Completed",)]  # other tests may share the database
    assert processes_in(folder) == []


@pytest.mark.hard
def test_a_killed_run_leaves_nothing_running(folder: Path):
    run = start_run()
    wait_for(lambda: started(folder))
    run.kill()
    run.communicate(timeout=60)
    wait_for(lambda: processes_in(folder) == [])


def test_a_configured_server_that_does_not_answer_is_reported(folder: Path, port: int):
    output, _ = (run := start_run()).communicate(timeout=60)
    assert run.returncode == 2
    assert "unset PREFECT_API_URL" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_run_without_its_server_finishes_the_stages_and_reports_what_prefect_misses(folder: Path, port: int):
    (folder / "end-two").touch()
    with team_server(port):
        run = start_run()
        wait_for(lambda: started(folder))
    (folder / "end-one").touch()
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 75, output
    assert "it stays Running there" in output
    assert "Traceback" not in output
    assert started(folder) == ["one", "two"]
    assert "up to date" in dvc("repro")


@pytest.mark.hard
def test_a_stage_waits_for_its_slot_until_the_server_is_back(folder: Path, port: int):
    (folder / "dvc.yaml").write_text((folder / "dvc.yaml").read_text() + SLOT.removeprefix("    "))
    (folder / "end-two").touch()
    with team_server(port):
        run = start_run()
        wait_for(lambda: started(folder))
    (folder / "end-one").touch()
    output = ""
    while "does not answer" not in output:
        output += (line := run.stdout.readline())
        assert line, output
    assert started(folder) == ["one"]
    with team_server(port):
        output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert started(folder) == ["one", "two"]
    with closing(prefect_database(folder)) as database:
        assert database.execute("SELECT state_name FROM flow_run").fetchall() == [("Completed",)]
