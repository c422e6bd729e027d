"""The server as a process, asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.settings import set_params
from tests.command import lectern
from tests.server.served import PATIENCE, server
from tests.titles.small import register

LIMITS = {"texts": 4, "megabytes": 0.01, "seconds": 60, "waiting": 1, "batch": 4, "refresh": 0.2}


def _ask(port: int, path: str, body: Any = None) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=data, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return reply.status, json.loads(reply.read()), dict(reply.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), dict(error.headers)


def _titles(port: int, *texts: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    return _ask(port, "/titles", {"texts": texts})


def _until(port: int, **wanted: object) -> dict[str, Any]:
    """What /health says once it has what is wanted."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            _, health, _ = _ask(port, "/health")
            if all(health[name] == value for name, value in wanted.items()):
                return health
        except OSError:
            health = None
        assert time.monotonic() < deadline, health
        time.sleep(0.1)


@pytest.fixture
def limited(project: Path) -> Path:
    set_params(["serve"], LIMITS)
    return project


def test_a_server_gives_titles_keeps_its_limits_and_follows_the_version(limited: Path, examples: pd.DataFrame) -> None:
    register(limited / "small", examples)
    texts = examples["text"].str.slice(0, 200).str.strip().tolist()[:4]
    with server(limited) as (port, process):
        _until(port, version="lectern/1")
        status, answer, _ = _titles(port, *texts)
        assert (status, answer["version"], len(answer["titles"])) == (200, "lectern/1", 4)
        assert [_titles(port, text)[1]["titles"] for text in texts] == [[title] for title in answer["titles"]]
        assert lectern("title", texts[0], cwd=limited).stdout.strip() == answer["titles"][0]["title"]

        for body in ({"texts": texts * 2}, {"texts": []}, {"texts": [" "]}, {"text": texts}, {"texts": [None]}, b"{"):
            assert _ask(port, "/titles", body)[0] == 422
        assert _titles(port, "long " * 10_000)[0] == 413
        assert _ask(port, "/nowhere")[0] == 404

        _, described, _ = _ask(port, "/openapi.json")
        assert {"200", "413", "422", "429", "503", "504"} <= set(described["paths"]["/titles"]["post"]["responses"])

        with ThreadPoolExecutor(32) as crowd:
            answers = list(crowd.map(lambda _: _titles(port, *texts), range(64)))
        assert {status for status, *_ in answers} == {200, 429}
        assert all(int(headers["retry-after"]) >= 1 for status, _, headers in answers if status == 429)
        assert all(len(answer["titles"]) == 4 for status, answer, _ in answers if status == 200)
        assert _titles(port, *texts)[0] == 200

        register(limited / "small", examples, beams=2)
        _until(port, version="lectern/2")
        assert _titles(port, texts[0])[1]["version"] == "lectern/2"
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)


def test_until_a_version_is_registered_there_is_none(limited: Path, examples: pd.DataFrame) -> None:
    with server(limited) as (port, _):
        _until(port, version=None)
        deadline = time.monotonic() + PATIENCE
        while not (problem := _ask(port, "/health")[1]["problem"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "lectern run" in problem
        status, answer, headers = _titles(port, "we talk about graphs")
        assert (status, "lectern run" in answer["detail"], int(headers["retry-after"]) >= 1) == (503, True, True)
        assert _ask(port, "/health")[0] == 503
        register(limited / "small", examples)
        assert _until(port, version="lectern/1", problem=None)
        assert _titles(port, "we talk about graphs")[0] == 200


def test_a_port_that_is_taken_is_said_at_once(limited: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = lectern("serve", "--port", str(taken.getsockname()[1]), cwd=limited)
    assert (done.returncode, "--port" in done.stderr) == (2, True)
