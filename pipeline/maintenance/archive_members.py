"""Check that no member of a tar can leave the folder, before anything is unpacked.

Python's own filter (`filter="data"`) checks each member after earlier ones are written, and in many releases of Python
chains of links get past it. These rules need no file system, and are stricter.
"""

from __future__ import annotations

import tarfile
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from posixpath import normpath

_LATEST = 1 << 62  # seconds; file times have 64 bits


class OutsideFolder(Exception):
    """A member of an archive could leave the folder that the archive is unpacked in."""


def checked_members(tar: Iterable[tarfile.TarInfo], *, twice: str) -> list[tarfile.TarInfo]:
    """Check and return all members of `tar`, an archive without compression.

    Each member is a file, a folder or a link. It has a unique, plain, relative name, and its parents are folders, not
    links or files. A symbolic link, resolved from its own folder, stays inside. A hard link names an earlier file.

    Args:
        twice: the only name that several files may have.

    Raises:
        OutsideFolder: a member breaks one of these rules.
    """
    found: list[tarfile.TarInfo] = []
    files: set[str] = set()
    names: set[str] = set()
    for member in tar:
        _require_plain_name(member.name)
        _require_known_kind(member)
        if member.name in names and not (member.name == twice and member.isreg()):
            raise OutsideFolder(f"It has '{member.name}' twice.")
        if member.issym():
            _require_end_inside(member)
        if member.islnk() and member.linkname not in files:
            raise OutsideFolder(
                f"'{member.name}' is a hard link to '{member.linkname}', which is not an earlier file in the archive."
            )
        names.add(member.name)
        if member.isreg():
            files.add(member.name)
        found.append(member)
    _require_folders_above(found)
    return found


def _require_plain_name(name: str) -> None:
    if not name or "\0" in name or name != normpath(name) or name.startswith(("/", "../")) or name in (".", ".."):
        raise OutsideFolder(f"{name!r} is not a plain name inside the folder.")


def _require_known_kind(member: tarfile.TarInfo) -> None:
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise OutsideFolder(f"'{member.name}' is not a file, a folder or a link.")
    # Many releases of Python read such a member without end, or write more bytes than the archive has.
    if member.size < 0 or member.issparse():
        raise OutsideFolder(f"'{member.name}' has an invalid size.")
    if not abs(member.mtime) < _LATEST:  # also false for NaN
        raise OutsideFolder(f"'{member.name}' has an invalid time.")


def _require_end_inside(link: tarfile.TarInfo) -> None:
    # A normal path has `..` only at its start, where it leaves real folders, not links.
    end = link.linkname
    depth = len(PurePosixPath(link.name).parent.parts)
    if "\0" in end or end.startswith("/") or end != normpath(end) or end.split("/").count("..") > depth:
        raise OutsideFolder(f"The link '{link.name}' leaves the folder: it points to '{end}'.")


def _require_folders_above(members: list[tarfile.TarInfo]) -> None:
    # Links are found by a key that ignores case, as some file systems do. Files are compared exactly, because names of
    # Git branches may differ only by case.
    links = {_spelling(member.name): member.name for member in members if member.issym()}
    files = {member.name for member in members if not (member.isdir() or member.issym())}
    for member in members:
        for above in map(str, PurePosixPath(member.name).parents):
            through = above if above in files else links.get(_spelling(above))
            if through:
                raise OutsideFolder(f"'{member.name}' would be written through '{through}', which is not a folder.")


def _spelling(name: str) -> str:
    """Return a key that is equal for all names that some file system treats as the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
