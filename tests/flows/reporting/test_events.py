"""Prefect gets an event for each new champion, from the command line and from flows."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prefect import get_client

from flows.services.service import free_port
from pipeline.registry import promotion
from pipeline.registry.gate import Verdict
from pipeline.registry.tracking import connect
from tests.command import lectern
from tests.conftest import SUBJECTS
from tests.flows.promotable import NAME, champion, register, write_splits
from tests.flows.toy_project import PrefectServer, wait_for

ROOT = Path(__file__).parents[3]
KEYS = ("action", "version", "before", "who")


@pytest.fixture
def folder(
    project: Path, prefect_server: PrefectServer, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project with two versions; the second knows more."""
    monkeypatch.setenv("PREFECT_HOME", str(project / "prefect-home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    write_splits(examples)
    for known in (SUBJECTS[:2], SUBJECTS):
        register(known)
    return project


def make_champion(number: str) -> None:
    """Promote without a gate and without an event."""
    promotion.promote(connect(), NAME, int(number), because="", judge=lambda new, _: Verdict(new.version, None, []))


def events() -> list[dict[str, Any]]:
    """Return the payloads of the promotions in Prefect, newest first."""
    with get_client(sync_client=True) as client:
        wanted = {"event": {"name": ["lectern.promoted"]}, "resource": {"id": [f"lectern.model.{NAME}"]}}
        return [
            event["payload"]
            for event in client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
        ]


@pytest.mark.slow
def test_a_promotion_at_the_command_line_emits_an_event(folder: Path):
    before = len(events())
    done = lectern("promote", "2", "--because", "knows more", cwd=Path.cwd())
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: len(events()) > before)
    told = events()[0]
    assert {key: told[key] for key in ("action", "version", "before", "because")} == {
        "action": "promote",
        "version": "2",
        "before": None,
        "because": "knows more",
    }
    assert told["who"]


@pytest.mark.slow
def test_a_rollback_succeeds_and_warns_if_prefect_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    make_champion("1")
    make_champion("2")
    done = lectern("rollback", cwd=Path.cwd())
    assert done.returncode == 0
    assert champion() == "1"
    assert "no automation starts" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def without_configured_server(prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect-home"))
    monkeypatch.delenv("PREFECT_API_URL")
    (tmp_path / ".lectern").mkdir()
    return tmp_path


def report_rollback() -> subprocess.CompletedProcess[str]:
    move = promotion.Move(
        "rollback", version="1", before="2", who="Ada", when="2026-01-01T00:00:00Z", because="too long"
    )
    script = (
        "import json, sys; from flows.reporting.events import report_promotion; "
        "from pipeline.registry.promotion import Move; "
        "report_promotion(sys.argv[1], Move(**json.loads(sys.argv[2])))"
    )
    command = [sys.executable, "-c", script, NAME, json.dumps(asdict(move))]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


@pytest.mark.slow
def test_the_server_of_lectern_up_gets_the_event(without_configured_server: Path, prefect_server: PrefectServer):
    (without_configured_server / ".lectern/prefect.url").write_text(prefect_server.url)
    assert report_rollback().returncode == 0
    wait_for(lambda: ("rollback", "1", "2", "Ada") in [tuple(told[key] for key in KEYS) for told in events()])


def test_without_a_server_nothing_is_printed_or_started(without_configured_server: Path):
    done = report_rollback()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (without_configured_server / "prefect-home/prefect.db").exists()
