"""Files of the page's visitors: uploaded by them or made for them, and out of reach of everybody else."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

COOKIE = "lectern_visitor"
_SECRET = re.compile(r"[\w-]{43}", re.ASCII)


def new_visitor() -> str:
    """A secret that tells one visitor from another."""
    return secrets.token_urlsafe(32)


def is_visitor(secret: str) -> bool:
    """True if `secret` has the form of one from `new_visitor`."""
    return _SECRET.fullmatch(secret) is not None


class VisitorFiles:
    """Keeps each visitor's files in a folder named after a hash of the visitor's secret.

    A path therefore shows whose file it is, and knowing a path is of no use without the secret.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "visitors"

    def new_folder(self, visitor: str) -> Path:
        """Make a folder for one file of `visitor`. Its name cannot be guessed from the file's content."""
        folder = self._folder_of(visitor) / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        return folder

    def find(self, visitor: str, path: str) -> Path | None:
        """The file at `path` if it belongs to `visitor`, else None.

        The disk is only looked at below the visitor's own folder, so the answer says nothing about other files.
        """
        found = Path(path)
        if ".." in found.parts or found.parent.parent != self._folder_of(visitor):
            return None
        try:
            return found if found.is_file() and not found.is_symlink() else None
        except OSError:  # such as a name that is too long
            return None

    def _folder_of(self, visitor: str) -> Path:
        return self._folder / hashlib.sha256(visitor.encode()).hexdigest()
