"""Whether a lock is held: the system lets go of one when its process dies, however it does."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


def is_held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
