"""Files that may hold a password or a token are private under any umask."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flows.cluster.worker import Source, work_tree
from flows.graph.exclusive_access import work_tree_lock
from flows.services.service import Service
from flows.services.up import address_file
from pipeline.files import file_aside, write_text
from pipeline.maintenance.backup import back_up, restore
from pipeline.paths import STATE
from pipeline.registry.tracking_store import create_database
from tests.conftest import ROOT

TOKEN = "pLanTed-s3cret"


@pytest.fixture(autouse=True)
def open_to_all() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def holding(secret: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def reachable(path: Path, within: Path) -> bool:
    """Return whether another user who can enter `within` can read `path`."""
    above = [each for each in path.parents if each != within and each.is_relative_to(within)]
    return bool(mode(path) & 0o077) and all(mode(each) & 0o077 for each in above)


@pytest.fixture
def secrets(project: Path) -> Path:
    """A project with a token in each place that may hold one, made by an older version: for all to read."""
    for name in (".dvc/config.local", ".git/config", ".env", ".lectern/prefect.auth", ".prefect/profiles.toml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(TOKEN, encoding="utf-8")
    with closing(sqlite3.connect("mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE t (n)")
        connection.execute("INSERT INTO t VALUES (?)", (TOKEN,))
    return project


def test_a_backup_and_restored_secrets_are_private(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("elsewhere")
    back_up(place / "lectern.tar")
    assert mode(place / "lectern.tar") == 0o600
    with tarfile.open(place / "lectern.tar") as tar:
        assert {member.mode & 0o077 for member in tar if member.name == ".dvc/config.local"} == {0o066}
    restore(place / "lectern.tar", place / "new")
    found = holding(TOKEN, place / "new")
    assert len(found) == 6
    assert {path.name: mode(path) for path in found if mode(path) != 0o600} == {}
    assert (mode(place / "new/.lectern"), mode(place / "new/.prefect")) == (0o700, 0o700)
    assert mode(place / "new/params.yaml") & 0o044


def test_a_private_file_is_private_from_its_first_byte(tmp_path: Path) -> None:
    with file_aside(tmp_path / "backup", private=True) as path:
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        path.unlink()
        path.write_text(TOKEN, encoding="utf-8")  # as a library may, that replaces a file
        assert not reachable(path, tmp_path)
    assert mode(tmp_path / "backup") == 0o600


@pytest.mark.parametrize("before", ["missing", "for all to read"])
def test_logs_addresses_and_databases_are_private(before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = STATE / "logs/page.log"
    if before == "for all to read":
        log.parent.mkdir(parents=True)
        log.write_text("old", encoding="utf-8")
    with Service("It", [sys.executable, "-c", f"print('{TOKEN}')"], log=log) as it:
        it._child.wait()
    assert TOKEN in log.read_text(encoding="utf-8")
    with address_file(STATE / "prefect.url", f"http://lectern:{TOKEN}@127.0.0.1"):
        assert mode(STATE / "prefect.url") == 0o600
    create_database("sqlite:///mlflow.db")
    assert (mode(STATE), mode(log), mode(Path("mlflow.db"))) == (0o700, 0o600, 0o600)


@pytest.mark.parametrize("make", [work_tree_lock, lambda: write_text(STATE / "batches/deep/a.json", TOKEN)])
def test_the_state_folder_is_always_created_private(make, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make()
    assert mode(STATE) == 0o700


def test_only_these_functions_create_the_state_folder() -> None:
    code = [path for part in ("lectern", "pipeline", "flows") for path in (ROOT / part).rglob("*.py")]
    assert [path.name for path in code if "STATE.mkdir(" in path.read_text(encoding="utf-8")] == []


def test_a_clone_with_a_token_in_its_address_is_private(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = tmp_path_factory.mktemp("trees")
    monkeypatch.setenv("LECTERN_WORK_TREES", str(trees))
    for words in (
        *(["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"], ["git", "add", "-A"]),
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a"],
    ):
        subprocess.run(words, cwd=project, check=True)
    with work_tree(Source(f"file://{TOKEN}@localhost{project}", "HEAD", "")) as tree:
        found = holding(TOKEN, tree)
        assert found
        assert [path for path in found if reachable(path, trees)] == []
