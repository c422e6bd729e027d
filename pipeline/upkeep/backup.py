"""A project folder in one file, and a project folder made of that file again, at the same place or at another."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import Misused, Refused
from pipeline.files import file_aside, folder_aside

_LABEL = "lectern-backup.json"
_MADE_AGAIN = {".venv", ".dvc/tmp", *(f".lectern/{name}" for name in ("features", "converted", "fetched", "logs"))}
_MADE_AGAIN_ANYWHERE = {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
_OF_RUNNING_SERVERS = (".db-wal", ".db-shm", ".db-journal", "mlflow.url", "prefect.url", "reports.url")
_PATIENCE = 60.0  # seconds that a database may be busy

# Where MLflow's database says where artifacts lie, always by whole paths: table and column.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


class Label(BaseModel):
    """What the first member of a backup says of it, and the last one again: what was cut off lacks that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path  # the project's, when it was made
    made: str  # UTC


def back_up(file: Path) -> Label:
    """Writes the project in the working directory, but for what can be made again, to `file`, a tar.

    Servers may run meanwhile: each database is copied as it is at one moment. Stages may not.

    Raises:
        Misused: there is such a file already, or it would lie in the project.
        Refused: it cannot be written.
    """
    project = Path.cwd()
    if file.is_relative_to(project):
        raise Misused(f"{file} lies in the project, and would be lost with it. Name a place elsewhere.")
    if file.exists():
        raise Misused(f"{file} is there already. Choose another name, or move it away.")
    label = Label(folder=project, made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    try:
        with file_aside(file) as aside, tarfile.open(aside, "w") as tar:
            _write(tar, project, label)
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error}. Nothing of it is left.") from error
    return label


def restore(file: Path, folder: Path) -> Label:
    """Makes a project folder, `folder`, of a backup, in which MLflow finds its artifacts.

    Raises:
        Misused: `folder` holds something already, or there is no `file`.
        Refused: `file` is no backup, or a damaged one, or cannot be unpacked; nothing was restored then.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Misused(f"{folder} is there already. Name a folder that is not, or an empty one.")
    if not file.exists():
        raise Misused(f"There is no file {file}.")
    try:
        with tarfile.open(file) as tar, folder_aside(folder) as aside:
            label = _read_label(tar, file)
            tar.extractall(aside, filter="tar")
            if [member.name for member in tar].count(_LABEL) != 2:
                raise EOFError("its end is missing")
            (aside / _LABEL).unlink()
            for database in filter(_is_database, aside.rglob("*.db")):
                _settle(database, label.folder, folder)
    except (tarfile.TarError, EOFError, sqlite3.DatabaseError, OSError) as error:
        raise Refused(f"{file} cannot be restored: {error}. Nothing of it is left in {folder}.") from error
    return label


def _write(tar: tarfile.TarFile, project: Path, label: Label) -> None:
    _add_label(tar, label)
    for path in _members(project):
        with suppress(FileNotFoundError):  # a running server has removed it meanwhile
            if _is_database(path):
                _add_database(tar, path, project)
            else:
                tar.add(path, path.relative_to(project), recursive=False)
    _add_label(tar, label)


def _add_label(tar: tarfile.TarFile, label: Label) -> None:
    content = label.model_dump_json().encode()
    member = tarfile.TarInfo(_LABEL)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))


def _members(project: Path) -> Iterator[Path]:
    """What belongs into a backup, folders ahead of what is in them."""
    for place, folders, files in os.walk(project):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _MADE_AGAIN_ANYWHERE and (here / name).relative_to(project).as_posix() not in _MADE_AGAIN
        )
        yield from (here / name for name in (*folders, *sorted(files)) if not name.endswith(_OF_RUNNING_SERVERS))


def _is_database(path: Path) -> bool:
    if path.suffix != ".db" or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _add_database(tar: tarfile.TarFile, path: Path, project: Path) -> None:
    with TemporaryDirectory(dir=Path(tar.name).parent) as folder:
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(path, timeout=_PATIENCE)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        shutil.copystat(path, copy)
        tar.add(copy, path.relative_to(project))


def _read_label(tar: tarfile.TarFile, file: Path) -> Label:
    first = tar.next()
    content = tar.extractfile(first) if first and first.name == _LABEL else None
    try:
        return Label.model_validate_json(content.read() if content else "")
    except ValidationError:
        raise Refused(f"{file} is not what `lectern backup` writes.") from None


def _settle(database: Path, before: Path, now: Path) -> None:
    """Sees that a database is whole; of MLflow's, makes the addresses in the folder `before` those in `now`."""
    with closing(sqlite3.connect(database)) as connection, connection:
        ((found,),) = connection.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(f"{database.name}: {found}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for table, column in _ADDRESSES if {"experiments", "runs", "model_versions"} <= tables else ():
            for old, new in ((before.as_uri(), now.as_uri()), (str(before), str(now))):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, len(old) + 1, f"{old}/"),
                )
