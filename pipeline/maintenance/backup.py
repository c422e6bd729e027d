"""Write a project folder into one file, and make a project folder of that file again, at the same place or another."""

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

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.files import PRIVATE_FILE, PRIVATE_FOLDER, file_aside, folder_aside
from pipeline.maintenance.archive_members import OutsideFolder, checked_members

_LABEL = "lectern-backup.json"
_LABEL_BYTES = 1 << 16
_MADE_AGAIN = {
    ".venv",
    ".dvc/tmp",
    *(f".lectern/{name}" for name in ("features", "converted", "fetched", "logs", "runs")),
}
_MADE_AGAIN_ANYWHERE = {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
_OF_RUNNING_SERVERS = (".db-wal", ".db-shm", ".db-journal", "mlflow.url", "prefect.url", "reports.url")
_PATIENCE = 60.0  # seconds that a database may be busy
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, sqlite3.DatabaseError, OSError)
"""Errors from an archive with wrong content, such as a size of thirty digits."""

_PRIVATE_FOLDERS = {".lectern", ".prefect"}  # tokens, addresses with passwords, Prefect's blocks
_PRIVATE_FILES = {".dvc/config.local", ".git/config", ".env"}
"""Beside the databases, what may hold a password or a token."""

# Where MLflow's database says where artifacts lie, always by whole paths: table and column.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


class Label(BaseModel):
    """The first member of a backup, and its last one again: a backup that was cut off lacks that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path  # the project's, when it was made
    made: str  # UTC


def back_up(file: Path) -> list[Path]:
    """Write the project in the working directory, without what can be made again, to `file`, a tar for this user only.

    Servers may run meanwhile: each database is copied as of one moment. Stages may not.

    Returns:
        The links that were left out, since they lead out of the project.

    Raises:
        UsageError: `file` exists, or lies in the project.
        Rejected: it cannot be written, or `restore` would not take it.
    """
    project = Path.cwd()
    if file.is_relative_to(project):
        raise UsageError(f"{file} lies in the project, and would be lost with it. Name a place elsewhere.")
    if file.exists():
        raise UsageError(f"{file} is there already. Choose another name, or move it away.")
    label = Label(folder=project, made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    try:
        with file_aside(file, private=True) as aside:
            with tarfile.open(aside, "w") as tar:
                left_out = _write(tar, project, label)
            with _open(aside) as tar:
                _checked(tar, file)
            return left_out
    except OutsideFolder as error:
        raise Rejected(
            f"`lectern restore` would not take this backup: {error} Rename or remove it, and back up again. "
            "Nothing was written."
        ) from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Rejected(f"{file} cannot be written: {error}. Nothing of it is left.") from error


def restore(file: Path, folder: Path) -> Label:
    """Make a project folder, `folder`, of a backup, in which MLflow finds its artifacts.

    Everything in the backup is checked before the first byte is written, and all is written within `folder`.

    Raises:
        UsageError: `folder` holds something already, or there is no `file`.
        Rejected: `file` is no backup, is damaged, leads out of `folder`, or cannot be unpacked; nothing was restored.
        TemporaryFailure: the disk has too little room for it.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already. Name a folder that is not, or an empty one.")
    if not file.exists():
        raise UsageError(f"There is no file {file}.")
    try:
        with _open(file) as tar:
            label, members = _checked(tar, file)
            _require_room(sum(member.size for member in members), folder)
            with folder_aside(folder) as aside:
                tar.extractall(aside, members, filter="data")
                _make_private(aside, members)
                for database in filter(_is_database, aside.rglob("*.db")):
                    database.chmod(PRIVATE_FILE)
                    _settle(database, label.folder, folder)
    except OutsideFolder as error:
        raise Rejected(
            f"{file}: {error} `lectern backup` writes nothing like it, so somebody else has made or changed this file. "
            "Nothing was restored."
        ) from None
    except _DAMAGE as error:
        raise Rejected(f"{file} cannot be restored: {error}. Nothing of it is left in {folder}.") from error
    return label


def _open(file: Path) -> tarfile.TarFile:
    """Open a tar that is not compressed, so that it cannot unpack to more than its own size.

    Raises:
        Rejected: the file is not a plain tar.
    """
    try:
        return tarfile.open(file, "r:")
    except tarfile.ReadError:
        raise Rejected(
            f"{file} is not what `lectern backup` writes, a tar without compression. "
            "If you have compressed it, unpack it first, for instance with gunzip."
        ) from None


def _checked(tar: tarfile.TarFile, file: Path) -> tuple[Label, list[tarfile.TarInfo]]:
    """The label and the other members, none of which writes outside the folder that it is unpacked in."""
    label = _read_label(tar, file)
    members = checked_members(tar, twice=_LABEL)
    if [member.name for member in members].count(_LABEL) != 2:
        raise EOFError("its end is missing")
    for member in members:
        # SQLite acts on a journal that it finds beside a database, and may remove a file that the journal names.
        if member.name.endswith(_OF_RUNNING_SERVERS):
            raise OutsideFolder(f"'{member.name}' belongs to a running server.")
        if member.name == _LABEL and member.size > _LABEL_BYTES:
            raise OutsideFolder(f"'{_LABEL}' is larger than {_LABEL_BYTES:,} bytes.")
        # The label is not unpacked, so each link to it would become a copy, for which no room was counted.
        if member.islnk() and member.linkname == _LABEL:
            raise OutsideFolder(f"'{member.name}' is a hard link to '{_LABEL}'.")
    return label, [member for member in members if member.name != _LABEL]


def _require_room(needed: int, folder: Path) -> None:
    place = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise TemporaryFailure(
            f"The disk has too little room: the backup holds {needed:,} bytes, and {free:,} are free at {place}. "
            "Make room, or name a folder on another disk."
        )


def _make_private(folder: Path, members: list[tarfile.TarInfo]) -> None:
    """Keep other users away from what may hold a secret, whatever modes the archive gives it."""
    for member in members:
        is_private = member.name in _PRIVATE_FILES or member.name.split("/")[0] in _PRIVATE_FOLDERS
        if is_private and not member.issym():
            (folder / member.name).chmod(PRIVATE_FOLDER if member.isdir() else PRIVATE_FILE)


def _write(tar: tarfile.TarFile, project: Path, label: Label) -> list[Path]:
    left_out = []
    _add_label(tar, label)
    for path in _members(project):
        with suppress(FileNotFoundError):  # a running server has removed it meanwhile
            if path.is_symlink():
                left_out += [] if _add_link(tar, path, project) else [path]
            elif _is_database(path):
                _add_database(tar, path, project)
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
    """Add a link as one to where it ends, seen from its own folder; False if that is outside the project."""
    end = Path(os.path.realpath(link))
    if not end.is_relative_to(project):
        return False
    member = tar.gettarinfo(link, link.relative_to(project))
    member.linkname = os.path.relpath(end, link.parent)
    tar.addfile(member)
    return True


def _members(project: Path) -> Iterator[Path]:
    """The folders, files and links that belong into a backup, folders ahead of what is in them."""
    for place, folders, files in os.walk(project):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _MADE_AGAIN_ANYWHERE and (here / name).relative_to(project).as_posix() not in _MADE_AGAIN
        )
        for path in (here / name for name in (*folders, *sorted(files))):
            is_kept = path.is_symlink() or path.is_dir() or path.is_file()  # and is no pipe, socket or device
            if is_kept and not path.name.endswith(_OF_RUNNING_SERVERS) and path != project / _LABEL:
                yield path


def _is_database(path: Path) -> bool:
    if path.suffix != ".db" or path.is_symlink() or not path.is_file():
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
    content = tar.extractfile(first) if first and first.isreg() and first.name == _LABEL else None
    try:
        label = Label.model_validate_json(content.read(_LABEL_BYTES) if content else "")
    except ValidationError:
        raise Rejected(f"{file} is not what `lectern backup` writes.") from None
    if not label.folder.is_absolute():
        raise Rejected(f"{file} is not what `lectern backup` writes.")
    return label


def _settle(database: Path, before: Path, now: Path) -> None:
    """Check that a database is whole; in MLflow's, replace the addresses in the folder `before` by those in `now`."""
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
