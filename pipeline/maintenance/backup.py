"""Back up a project folder to one file, and restore it at the same place or another.

MLflow stores absolute paths of artifacts, so `restore` replaces the old project path by the new one in its database.
Proxied artifacts (`mlflow-artifacts:/`) would be portable, but only a running server resolves them, and every command
also works on the SQLite file without a server.
"""

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

from pydantic import ValidationError

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.files import PRIVATE_FILE, PRIVATE_FOLDER, file_aside, folder_aside
from pipeline.json_records import Record
from pipeline.maintenance.archive_members import OutsideFolder, checked_members
from pipeline.paths import EXPORTS

_LABEL = "lectern-backup.json"
_LABEL_BYTES = 1 << 16
_CACHED_STATE = ("features", "converted", "fetched", "logs", "runs")
_CACHES = {".venv", ".dvc/tmp", str(EXPORTS), *(f".lectern/{name}" for name in _CACHED_STATE)}
_CACHES_ANYWHERE = {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
_SERVER_FILES = (".db-wal", ".db-shm", ".db-journal", "mlflow.url", "prefect.url", "reports.url")
_BUSY_SECONDS = 60.0  # how long a database may be locked
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, sqlite3.DatabaseError, OSError)
"""Errors that a damaged archive can raise, for instance by a size of thirty digits."""

_PRIVATE_FOLDERS = {".lectern", ".prefect"}  # tokens, addresses with passwords, Prefect's blocks
_PRIVATE_FILES = {".dvc/config.local", ".git/config", ".env"}
"""Files that may hold a password or a token. Databases are private too."""

# The tables and columns of MLflow's database with absolute paths of artifacts.
_PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


class Label(Record):
    """The first and the last member of a backup. A truncated backup lacks the last one."""

    folder: Path  # the project folder at the time of the backup
    made: str  # UTC


def back_up(file: Path) -> list[Path]:
    """Write the project in the working directory to `file`, a tar that only this user may read; leave out caches.

    Servers may run meanwhile, because each database is copied as a consistent snapshot. Stages may not run.

    Returns:
        The links that were left out because they point outside the project.

    Raises:
        UsageError: `file` exists, or lies in the project.
        Rejected: the backup cannot be written, or `restore` would refuse it.
    """
    project = Path.cwd()
    if file.is_relative_to(project):
        raise UsageError(f"{file} is inside the project and would be lost with it. Name a file outside the project.")
    if file.exists():
        raise UsageError(f"{file} already exists. Choose another name, or move the file away.")
    label = Label(folder=project, made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    try:
        with file_aside(file, private=True) as aside:
            with tarfile.open(aside, "w") as tar:
                left_out = _write(tar, project, label, aside.parent)
            with _open(aside) as tar:
                _checked(tar, file)
            return left_out
    except OutsideFolder as error:
        raise Rejected(
            f"`lectern restore` would refuse this backup: {error} Rename or remove that file and back up again. "
            "Nothing was written."
        ) from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Rejected(f"{file} cannot be written: {error}. The incomplete file was removed.") from error


def restore(file: Path, folder: Path) -> Label:
    """Restore a backup as the project folder `folder`, and let MLflow find its artifacts there.

    The whole backup is checked before the first byte is written, and nothing is written outside `folder`.

    Raises:
        UsageError: `folder` is not empty, or `file` does not exist.
        Rejected: `file` is not a backup, is damaged, would write outside `folder`, or cannot be unpacked.
        TemporaryFailure: the disk has too little room.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already exists. Name a new or an empty folder.")
    if not file.exists():
        raise UsageError(f"{file} does not exist. Name a file that `lectern backup` wrote.")
    try:
        with _open(file) as tar:
            label, members = _checked(tar, file)
            _require_room(sum(member.size for member in members), folder)
            with folder_aside(folder) as aside:
                tar.extractall(aside, members, filter="data")
                _make_private(aside, members)
                for database in filter(_is_database, aside.rglob("*.db")):
                    database.chmod(PRIVATE_FILE)
                    _check_and_move(database, label.folder, folder)
    except OutsideFolder as error:
        raise Rejected(
            f"{file}: {error} `lectern backup` never writes this, so another program made or changed the file. "
            "Nothing was restored. Use another backup."
        ) from None
    except _DAMAGE as error:
        raise Rejected(
            f"{file} cannot be restored: {error}. {folder} was left as it was. Use another backup."
        ) from error
    return label


def _open(file: Path) -> tarfile.TarFile:
    """Open a tar without compression, which cannot unpack to more than its own size.

    Raises:
        Rejected: the file is compressed or not a tar.
    """
    try:
        return tarfile.open(file, "r:")
    except tarfile.ReadError:
        raise Rejected(
            f"{file} is not a backup of Lectern, which is an uncompressed tar. "
            "If you have compressed it, unpack it first, for instance with gunzip."
        ) from None


def _checked(tar: tarfile.TarFile, file: Path) -> tuple[Label, list[tarfile.TarInfo]]:
    """Return the label and the other members, after checking that none would be written outside the folder."""
    label = _read_label(tar, file)
    members = checked_members(tar, twice=_LABEL)
    if [member.name for member in members].count(_LABEL) != 2:
        raise EOFError("its end is missing")
    for member in members:
        # SQLite would apply a journal next to a database, and may delete a file that the journal names.
        if member.name.endswith(_SERVER_FILES):
            raise OutsideFolder(f"'{member.name}' belongs to a running server.")
        if member.name == _LABEL and member.size > _LABEL_BYTES:
            raise OutsideFolder(f"'{_LABEL}' is larger than {_LABEL_BYTES:,} bytes.")
        # The label is not unpacked, so each link to it would become a copy, which the counted size does not include.
        if member.islnk() and member.linkname == _LABEL:
            raise OutsideFolder(f"'{member.name}' is a hard link to '{_LABEL}'.")
    return label, [member for member in members if member.name != _LABEL]


def _require_room(needed: int, folder: Path) -> None:
    place = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise TemporaryFailure(
            f"The disk has too little room: the backup needs {needed:,} bytes, and {free:,} are free at {place}. "
            "Free some space, or name a folder on another disk."
        )


def _make_private(folder: Path, members: list[tarfile.TarInfo]) -> None:
    """Make files that may hold a secret private, whatever their modes in the archive."""
    for member in members:
        is_private = member.name in _PRIVATE_FILES or member.name.split("/")[0] in _PRIVATE_FOLDERS
        if is_private and not member.issym():
            (folder / member.name).chmod(PRIVATE_FOLDER if member.isdir() else PRIVATE_FILE)


def _write(tar: tarfile.TarFile, project: Path, label: Label, scratch: Path) -> list[Path]:
    left_out: list[Path] = []
    _add_label(tar, label)
    for path in _members(project):
        with suppress(FileNotFoundError):  # a running server removed the file meanwhile
            if path.is_symlink():
                left_out += [] if _add_link(tar, path, project) else [path]
            elif _is_database(path):
                _add_database(tar, path, project, scratch)
            else:
                tar.add(path, path.relative_to(project), recursive=False)
    _add_label(tar, label)
    return left_out


def _add_label(tar: tarfile.TarFile, label: Label) -> None:
    content = label.model_dump_json().encode()
    member = tarfile.TarInfo(_LABEL)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))


def _add_link(tar: tarfile.TarFile, link: Path, project: Path) -> bool:
    """Add a link, with a relative target; return False if its target is outside the project."""
    end = Path(os.path.realpath(link))
    if not end.is_relative_to(project):
        return False
    member = tar.gettarinfo(str(link), str(link.relative_to(project)))
    member.linkname = os.path.relpath(end, link.parent)
    tar.addfile(member)
    return True


def _members(project: Path) -> Iterator[Path]:
    """Yield the folders, files and links of a backup, each folder before its content."""
    for place, folders, files in os.walk(project):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _CACHES_ANYWHERE and (here / name).relative_to(project).as_posix() not in _CACHES
        )
        for path in (here / name for name in (*folders, *sorted(files))):
            is_kept = path.is_symlink() or path.is_dir() or path.is_file()  # not a pipe, a socket or a device
            if is_kept and not path.name.endswith(_SERVER_FILES) and path != project / _LABEL:
                yield path


def _is_database(path: Path) -> bool:
    if path.suffix != ".db" or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _add_database(tar: tarfile.TarFile, path: Path, project: Path, scratch: Path) -> None:
    with TemporaryDirectory(dir=scratch) as folder:
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        shutil.copystat(path, copy)
        tar.add(copy, path.relative_to(project))


def _read_label(tar: tarfile.TarFile, file: Path) -> Label:
    first = tar.next()
    content = tar.extractfile(first) if first and first.isreg() and first.name == _LABEL else None
    try:
        label = Label.model_validate_json(content.read(_LABEL_BYTES) if content else "")
    except ValidationError:
        raise Rejected(f"{file} is not a backup that `lectern backup` wrote.") from None
    if not label.folder.is_absolute():
        raise Rejected(f"{file} is not a backup that `lectern backup` wrote.")
    return label


def _check_and_move(database: Path, before: Path, now: Path) -> None:
    """Check a database for damage; in MLflow's database, replace the project path `before` by `now`."""
    with closing(sqlite3.connect(database)) as connection, connection:
        ((found,),) = connection.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(f"{database.name}: {found}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for table, column in _PATH_COLUMNS if {"experiments", "runs", "model_versions"} <= tables else ():
            for old, new in ((before.as_uri(), now.as_uri()), (str(before), str(now))):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, len(old) + 1, f"{old}/"),
                )
