"""Write files and folders atomically: write aside, then rename into place.

Durable, the default: the content is on the disk before the file gets its name, so a power loss leaves the old content
or the new, never an empty file. Pass `durable=False` for files that can be made again, such as outputs of stages and
caches. docs/reliability.md has the costs.

Private: only this user may read the file, because it may hold a password or a token.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from pipeline.paths import STATE

_START_OF_NAME = 200  # bytes
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


@contextmanager
def file_aside(target: Path, *, durable: bool = True, private: bool = False) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it becomes `target` if the block succeeds, and is removed if not."""
    with _beside(target, durable=durable) as path:
        if private:
            path.touch(PRIVATE_FILE)
        yield path
        if private:
            path.chmod(PRIVATE_FILE)  # the block may have put another file there
        if durable:
            _sync(path)
        path.replace(target)


@contextmanager
def folder_aside(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield an empty folder to fill; it replaces `target` if the block succeeds, and is removed if it fails."""
    with _beside(target, durable=durable) as path:
        path.mkdir()
        yield path
        if durable:
            sync(path)
        if target.exists():
            # Renamed, not removed: a kill during a long removal would leave half a folder.
            target.replace(path.with_name(f"{_start(target.name)}-before"))
        path.replace(target)


@contextmanager
def _beside(target: Path, *, durable: bool) -> Iterator[Path]:
    """Yield a path for `target` in a private folder; then sync the folders above `target`."""
    made = make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{_start(target.name)}.") as aside:
        yield Path(aside) / target.name
        if durable:
            for folder in (target.parent, *(folder.parent for folder in made)):
                _sync(folder)


def _start(name: str) -> str:
    """Return the start of a name, to which something can be added: most disks allow 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:_START_OF_NAME])


def move(source: Path, target: Path) -> None:
    """Rename a file, and wait until its new name is on the disk."""
    source.replace(target)
    _sync(target.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all its content, is on the disk with its name."""
    for place, _, files in os.walk(path):
        here = Path(place)
        for each in (*(here / name for name in files), here):
            if not each.is_symlink():
                _sync(each)
    if path.is_file():
        _sync(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> list[Path]:
    """Make `folder` and its missing parents; keep the project's state folder private.

    Returns:
        The folders that were made, the deepest first.
    """
    state = STATE.absolute()
    if folder.absolute().is_relative_to(state):
        make_private_folder(state)
    missing = []
    for each in (folder, *folder.parents):
        if each.exists():
            break
        missing.append(each)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def make_private_folder(folder: Path) -> None:
    """Make `folder` if it is missing, and keep other users out of it and of everything in it."""
    folder.mkdir(PRIVATE_FOLDER, exist_ok=True)
    if folder.stat().st_mode & 0o077:  # made by an older version of Lectern
        with suppress(PermissionError):  # the folder belongs to another user, who decides
            folder.chmod(PRIVATE_FOLDER)


def open_private(file: Path) -> IO[bytes]:
    """Open `file` for writing, empty; only this user may read it."""
    make_folder(file.parent)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    os.fchmod(descriptor, PRIVATE_FILE)  # an older version of Lectern may have made it
    return os.fdopen(descriptor, "wb")


def is_locked(lock: Path) -> bool:
    """Return whether a living process holds the lock: the system releases a lock when its process dies."""
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return `folder`, filled by `make` if it is missing. Of several processes, one fills it and the others wait."""
    make_folder(folder.parent)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            # Aside, because a process that is killed would otherwise leave half a folder.
            with folder_aside(folder) as aside:
                make(aside)
    return folder


def write_text(target: Path, text: str, *, durable: bool = True, private: bool = False) -> None:
    """Write `text` as UTF-8, completely or not at all."""
    with file_aside(target, durable=durable, private=private) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: Path, content: Any, *, durable: bool = True) -> None:
    """Write `content` as indented JSON with a final newline, completely or not at all."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n", durable=durable)
