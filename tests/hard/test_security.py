"""Secrets planted in the environment appear in no output and no file."""

from __future__ import annotations

import base64
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.services.service import Service, free_port
from tests.command import lectern
from tests.conftest import ROOT
from tests.whole_project import environment, make_project

pytestmark = pytest.mark.hard

PASSWORD = "pLanTed-in-the-address"
SECRETS = {
    "HF_TOKEN": "hf_pLanTedTokenOfTheHub",
    "AWS_SECRET_ACCESS_KEY": "pLanTedKeyOfTheBucket",
    "AWS_SESSION_TOKEN": "pLanTedTokenOfTheBucket",
    "MLFLOW_TRACKING_PASSWORD": "pLanTedPasswordOfMLflow",
    "GH_TOKEN": "pLanTedTokenOfTheRepository",
}
COMMANDS = [
    ["run"],
    ["run"],
    ["models"],
    ["promote", "--force", "--because", "a rehearsal"],
    ["history"],
    ["lineage"],
    ["card"],
    ["title", "we talk about gradients and why gradients matter"],
    ["promote"],  # is refused
    ["clean"],
]


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A project as it is shipped, with one small model."""
    folder = tmp_path / "project"
    make_project(folder, ["t5-tiny"])
    shutil.copy(ROOT / "prefect.yaml", folder)
    return folder


@contextmanager
def _mlflow(folder: Path) -> Iterator[str]:
    """The address of a tracking server, with a password in it that nobody asks for."""
    folder.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")]
    with Service("MLflow", command, log=folder / "log", health=f"http://127.0.0.1:{port}/health") as server:
        server.wait_until_healthy()
        yield f"http://lectern:{PASSWORD}@127.0.0.1:{port}"


def test_planted_secrets_are_written_nowhere(shipped: Path, tmp_path: Path) -> None:
    said = {}
    with _mlflow(tmp_path / "server") as address:
        planted = environment(MLFLOW_TRACKING_URI=address, **SECRETS)
        for words in COMMANDS:
            done = lectern(*words, cwd=shipped, env=planted)
            said[" ".join(words)] = done.stdout + done.stderr
            assert "Traceback" not in done.stderr, done.stderr
    assert "Nothing is stale" in said["run"] or "Next steps" in said["run"], said["run"]
    away = lectern("models", cwd=shipped, env=environment(MLFLOW_TRACKING_URI=f"http://lectern:{PASSWORD}@127.0.0.1:9"))
    said["models, when MLflow is away"] = away.stdout + away.stderr

    hidden = [PASSWORD, *SECRETS.values()]
    hidden += [base64.b64encode(f"lectern:{PASSWORD}".encode()).decode()]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    found = {str(path) for path in written for secret in hidden if secret.encode() in path.read_bytes()}
    found |= {command for command, text in said.items() for secret in hidden if secret in text}
    print(f"{len(written)} files, {sum(path.stat().st_size for path in written):,} bytes, {len(said)} outputs searched")
    assert not found
