"""A toy DVC project for each test, and one Prefect server for all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging.handlers import APILogHandler
from toy_project import MakeProject, PrefectServer

from flows.server import api_url, prefect_service, report_to
from flows.service import free_port

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
    return folder


@pytest.fixture
def make_project(empty_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeProject:
    folder = tmp_path / "project"
    shutil.copytree(empty_project, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def make(dvc_yaml: str) -> Path:
        (folder / "dvc.yaml").write_text(textwrap.dedent(dvc_yaml))
        return folder

    return make


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """The server that flow runs in this process report to."""
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
        report_to(api_url(port))
        yield PrefectServer(api_url(port), folder / ".prefect" / "prefect.db")
        APILogHandler().flush()
