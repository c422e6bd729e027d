"""Translate errors about disk space, permissions, memory and file names into Lectern's errors."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import TemporaryFailure, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
# Libraries wrap the messages of the operating system and of SQLite in errors of their own.
_SAYS_FULL = re.compile(r"no space left on device|disk quota exceeded|file too large|database or disk is full", re.I)
_SAYS_FORBIDDEN = re.compile(r"read-only file system|attempt to write a readonly database", re.I)
_SHOWN = 100  # characters of a name that is too long
_SAYS_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|std::bad_alloc"
    r"|failed to map segment|STATUS_ALLOC_FAILED",
    re.I,
)


def translate_error(error: BaseException) -> TemporaryFailure | UsageError | None:
    """Return Lectern's error for `error` or one of its causes; None if the machine is not the cause."""
    for cause in _causes(error):
        code, text = getattr(cause, "errno", None), str(cause)
        if code == errno.ENAMETOOLONG:
            return UsageError(f"{_place(cause)[:_SHOWN]}… is a name too long for this disk. Give a shorter one.")
        if code in _FULL or _SAYS_FULL.search(text):
            return TemporaryFailure(
                f"The disk is full: {_place(cause)} could not be written. No half-written file is used. Free some "
                "space (`lectern clean` lists what can be removed), then run the command again."
            )
        if (code in _FORBIDDEN and getattr(cause, "filename", None)) or _SAYS_FORBIDDEN.search(text):
            return TemporaryFailure(
                f"This user may not read or write {_place(cause)}, or the disk is read-only. `ls -ld` shows the owner. "
                "Correct the permissions, then run the command again."
            )
        if lacks_memory(cause):
            return TemporaryFailure(
                "There is too little memory. Close other programs, or lower `micro_batch_tokens` in params.yaml, then "
                "run the command again: a training resumes from its last checkpoint."
            )
    return None


def lacks_memory(error: BaseException) -> bool:
    """Return whether the cause of `error` is too little memory of the machine or of its GPU."""
    code = getattr(error, "errno", None)
    return code == errno.ENOMEM or isinstance(error, MemoryError) or bool(_SAYS_NO_MEMORY.search(str(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _place(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return str(name) if name else f"a file in {Path.cwd()}"
