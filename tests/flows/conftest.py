"""A toy DVC project for each test, and one Prefect server for all of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import prefect.main  # noqa: F401 - before what imports absl, as in tests/conftest.py
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.services.prefect_server import api_url, prefect_service, use_server
from flows.services.service import free_port
from tests.flows.toy_project import REFUSE, MakeProject, PrefectServer
from tests.web_server import web_server

ROOT = Path(__file__).parents[2]


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True)


@pytest.fixture(scope="session")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    _run("git", "init", "--quiet", cwd=folder)
    _run(sys.executable, "-m", "dvc", "init", "--quiet", cwd=folder)
    _run(sys.executable, "-m", "dvc", "config", "core.analytics", "false", cwd=folder)
    shutil.copy(ROOT / "prefect.toml", folder)
    (folder / "params.yaml").write_text("{}\n", encoding="utf-8")
    (folder / "refuse.py").write_text(REFUSE, encoding="utf-8")
    return folder


@pytest.fixture
def make_project(
    empty_project: Path, enter_copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> MakeProject:
    folder = enter_copy(empty_project)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def make(dvc_yaml: str) -> Path:
        (folder / "dvc.yaml").write_text(textwrap.dedent(dvc_yaml))
        return folder

    return make


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """The server to which flow runs in this process report."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(ROOT / "prefect.toml", folder)
        server = prefect_service(port)
    with server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder / "client"))
        patch.setenv("PREFECT_API_URL", api_url(port))
        server.wait_until_healthy()
        use_server(api_url(port))
        # A flow run with heartbeats ends up to a second later, when the thread that sends them wakes up.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield PrefectServer(api_url(port), folder / ".prefect" / "prefect.db")
            APILogHandler().flush()


@pytest.fixture
def webhook() -> Iterator[SimpleNamespace]:
    """A server that keeps the messages it receives in `told`, and answers with `status`."""
    channel = SimpleNamespace(told=[], status=200)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            channel.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(channel.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with web_server(Handler) as address:
        channel.url = f"{address}/s3cret"
        yield channel


@pytest.fixture
def channel(webhook: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A webhook that `LECTERN_NOTIFY` names."""
    block = CustomWebhookNotificationBlock(
        name="Operators", url=webhook.url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    block.save("operators", overwrite=True)
    monkeypatch.setenv("LECTERN_NOTIFY", "custom-webhook/operators")
    return webhook
