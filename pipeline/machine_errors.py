"""What it means for our user that the machine lacks something: room on a disk, leave to write, memory."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import TemporaryFailure

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
# Libraries that write by themselves put the system's words, or SQLite's, into errors of their own kinds.
_SAYS_FULL = re.compile(r"no space left on device|disk quota exceeded|file too large|database or disk is full", re.I)
_SAYS_CLOSED = re.compile(r"read-only file system|attempt to write a readonly database", re.I)
_SAYS_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|std::bad_alloc"
    r"|failed to map segment|STATUS_ALLOC_FAILED",
    re.I,
)


def in_our_words(error: BaseException) -> TemporaryFailure | None:
    """`error`, or what it was raised from, as one of ours; None if it says nothing of the machine."""
    for cause in _causes(error):
        code, said = getattr(cause, "errno", None), str(cause)
        if code in _FULL or _SAYS_FULL.search(said):
            return TemporaryFailure(
                f"The disk is full: {_place(cause)} could not be written. Nothing half-written counts. Make room "
                "(`lectern clean` shows what may go), and give the same command again."
            )
        if (code in _CLOSED and getattr(cause, "filename", None)) or _SAYS_CLOSED.search(said):
            return TemporaryFailure(
                f"This user may not read or write there, or the disk is read-only: {_place(cause)}. `ls -ld` shows "
                "whose it is; once that is put right, give the same command again."
            )
        if lacks_memory(cause):
            return TemporaryFailure(
                "There is too little memory. End other programs, or lower `micro_batch_tokens` in params.yaml; then "
                "give the same command again: a training goes on from its last checkpoint."
            )
    return None


def lacks_memory(error: BaseException) -> bool:
    """Whether `error` says that the machine, or a device of it, has too little memory for what was asked of it."""
    code = getattr(error, "errno", None)
    return code == errno.ENOMEM or isinstance(error, MemoryError) or bool(_SAYS_NO_MEMORY.search(str(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _place(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return str(name) if name else f"a file in {Path.cwd()}"
