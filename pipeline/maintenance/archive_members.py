"""Check the members of a tar before anything is unpacked: none of them may reach out of the folder.

Python's own filter (`filter="data"`) sees one member at a time, when others are written already, and many releases of
Python can be led out of the folder through chains of links. These rules need no file system, and are stricter.
"""

from __future__ import annotations

import tarfile
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from posixpath import normpath

_LATEST = 1 << 62  # seconds; a file's time has 64 bits


class OutsideFolder(Exception):
    """A member of an archive could reach out of the folder that it is unpacked in."""


def checked_members(tar: Iterable[tarfile.TarInfo], *, twice: str) -> list[tarfile.TarInfo]:
    """Return all members of `tar`, an archive without compression.

    Each is a file, a folder or a link, has a plain relative name of its own, and lies in folders only, not beneath a
    link or a file. A symbolic link ends inside the folder, seen from its own place. A hard link names an earlier file.

    Args:
        twice: the one name that several files may have.

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
            raise OutsideFolder(f"'{member.name}' is in it twice.")
        if member.issym():
            _require_end_inside(member)
        if member.islnk() and member.linkname not in files:
            raise OutsideFolder(
                f"'{member.name}' is a hard link to '{member.linkname}', which is no earlier file in it."
            )
        names.add(member.name)
        if member.isreg():
            files.add(member.name)
        found.append(member)
    _require_folders_above(found)
    return found


def _require_plain_name(name: str) -> None:
    if not name or "\0" in name or name != normpath(name) or name.startswith(("/", "../")) or name in (".", ".."):
        raise OutsideFolder(f"{name!r} is no place within the folder.")


def _require_known_kind(member: tarfile.TarInfo) -> None:
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise OutsideFolder(f"'{member.name}' is neither a file, a folder nor a link.")
    # Read by many releases of Python for ever, and written as more bytes than the archive has.
    if member.size < 0 or member.issparse():
        raise OutsideFolder(f"'{member.name}' gives a wrong size.")
    if not abs(member.mtime) < _LATEST:  # not a number, either
        raise OutsideFolder(f"'{member.name}' gives a wrong time.")


def _require_end_inside(link: tarfile.TarInfo) -> None:
    # `..` stands only at the beginning, where it goes up from real folders. The rest cannot leave, not even by links.
    end = link.linkname
    depth = len(PurePosixPath(link.name).parent.parts)
    if "\0" in end or end.startswith("/") or end != normpath(end) or end.split("/").count("..") > depth:
        raise OutsideFolder(f"the link '{link.name}' leads out of the folder, to '{end}'.")


def _require_folders_above(members: list[tarfile.TarInfo]) -> None:
    # Only links lead elsewhere. A file and a folder may differ by case alone: Git keeps branches in such files.
    links = {_spelling(member.name): member.name for member in members if member.issym()}
    files = {member.name for member in members if not (member.isdir() or member.issym())}
    for member in members:
        for above in map(str, PurePosixPath(member.name).parents):
            through = above if above in files else links.get(_spelling(above))
            if through:
                raise OutsideFolder(f"'{member.name}' would be written through '{through}', which is no folder.")


def _spelling(name: str) -> str:
    """One for all names that some file system takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
