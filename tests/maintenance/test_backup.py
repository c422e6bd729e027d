"""A project folder in one file and back, while its databases are written to."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pipeline.errors import Rejected, UsageError
from pipeline.maintenance.backup import back_up, restore


@contextmanager
def _somebody_writing(database: Path) -> Iterator[None]:
    """Rows in pairs, each pair a transaction, for as long as the block runs."""
    stop, begun = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            while not stop.is_set():
                with connection:
                    connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        stop.set()
        writer.join()


@pytest.fixture
def filled(project: Path) -> Path:
    with closing(sqlite3.connect("mlflow.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (n)")
    for name in (
        ".venv/bin/python",
        "exports/lectern/1/export.json",
        ".lectern/features/1",
        ".lectern/reports.url",
        "pipeline/__pycache__/a.pyc",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("made again", encoding="utf-8")
    for name in ("dvc.lock", ".lectern/search/s/study.lock", "models/t5-tiny/weights", "empty/.gitkeep"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("kept", encoding="utf-8")
    return project


@pytest.fixture
def backup(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("elsewhere") / "lectern.tar"
    with _somebody_writing(filled / "mlflow.db"):
        back_up(file)
    return file


def test_a_restored_project_equals_the_original_except_for_caches(backup: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new folder"
    restore(backup, folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "params.yaml", "dvc.yaml", "mlflow.db", "dvc.lock", ".lectern/search/s/study.lock", "models/t5-tiny/weights",
        "empty/.gitkeep",
    }  # fmt: skip
    assert {path.name for path in backup.parent.iterdir()} == {"lectern.tar"}


def test_a_backup_can_be_restored_into_the_empty_working_directory(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    restore(backup, Path())
    assert (tmp_path / "new/dvc.lock").is_file()


def test_a_database_in_use_is_copied_as_a_consistent_snapshot(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new/mlflow.db")) as connection:
        ((ones, twos),) = connection.execute("SELECT sum(n = 1), sum(n = 2) FROM t")
    assert ones == twos > 0


def test_half_a_backup_and_a_foreign_tar_are_rejected(backup: Path, tmp_path: Path) -> None:
    other = backup.with_name("other.tar")
    with tarfile.open(other, "w") as tar:
        tar.add(backup, "backup")
    backup.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
    before = {path.name for path in tmp_path.iterdir()}
    for file in (backup, other):
        with pytest.raises(Rejected, match=file.name):
            restore(file, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_truncated_backup_is_rejected(backup: Path, tmp_path: Path) -> None:
    with tarfile.open(backup) as tar:
        last = tar.getmembers()[-1]
    backup.write_bytes(backup.read_bytes()[: last.offset])
    with pytest.raises(Rejected, match="its end is missing"):
        restore(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_existing_files_and_folders_are_not_overwritten(backup: Path, filled: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already exists"):
        restore(backup, filled)
    with pytest.raises(UsageError, match="already exists"):
        back_up(backup)
    with pytest.raises(UsageError, match="is inside the project"):
        back_up(filled / "backup.tar")
    with pytest.raises(UsageError, match="does not exist"):
        restore(tmp_path / "none.tar", tmp_path / "new")


def test_links_inside_the_project_are_restored_and_others_reported(
    filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("elsewhere")
    Path("models/linked").symlink_to(filled / "models/t5-tiny")
    Path("models/t5-tiny/again").symlink_to("../../dvc.lock")
    os.link("dvc.lock", "models/same")
    Path("data").symlink_to(place)
    Path("models/passwords").symlink_to("/etc/passwd")
    os.mkfifo("pipe")
    assert back_up(place / "lectern.tar") == [filled / "data", filled / "models/passwords"]
    restore(place / "lectern.tar", new := place / "new")
    assert (new / "models/linked/weights").read_text(encoding="utf-8") == "kept"
    assert (new / "models/t5-tiny/again").resolve() == new / "dvc.lock"
    assert (new / "models/same").samefile(new / "dvc.lock")
    assert not any(os.path.lexists(new / name) for name in ("data", "models/passwords", "pipe"))


def test_a_project_unpacked_by_hand_can_be_backed_up(backup: Path, tmp_path: Path) -> None:
    with tarfile.open(backup) as tar:
        tar.extract("lectern-backup.json", filter="data")
    again = backup.with_name("again.tar")
    back_up(again)
    assert restore(again, tmp_path / "new").folder == Path.cwd()


def test_branches_that_differ_only_by_case_are_restored(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (
        ["init", "-q"],
        [*who, "commit", "-qm", "a", "--allow-empty"],
        ["branch", "Fix"],
        ["branch", "fix/b"],
    ):
        subprocess.run(["git", *words], cwd=filled, check=True)
    place = tmp_path_factory.mktemp("elsewhere")
    back_up(place / "lectern.tar")
    restore(place / "lectern.tar", place / "new")
    branches = ["git", "branch", "--format=%(refname:short)"]
    said = subprocess.run(branches, cwd=place / "new", capture_output=True, text=True, check=True)
    assert {"Fix", "fix/b"} <= {*said.stdout.split()}


def test_a_backup_that_could_not_be_restored_is_not_written(
    filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("elsewhere")
    Path("Empty").symlink_to("models")
    with pytest.raises(Rejected, match=r"would refuse this backup: 'empty/\.gitkeep' would be written through 'Empty'"):
        back_up(place / "lectern.tar")
    assert list(place.iterdir()) == []
