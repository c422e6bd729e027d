"""Keep the cached features of all models within a limit of disk space."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.paths import FEATURES

_DEFAULT_LIMIT_GB = 10.0


def limit_bytes() -> int:
    """Return the most bytes that the features of all models may take, from `LECTERN_FEATURES_GB`. 0 disables them.

    Raises:
        UsageError: The variable is not a number of gigabytes.
    """
    text = os.environ.get("LECTERN_FEATURES_GB", str(_DEFAULT_LIMIT_GB))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise UsageError(f"LECTERN_FEATURES_GB is {text!r}, but must be a number of gigabytes, 0 or more.")
    return int(gigabytes * 1e9)


def make_room(needed: int, keep: Path) -> None:
    """Delete the least recently used features until `needed` more bytes fit the limit.

    Args:
        needed: Bytes that the caller will write.
        keep: The folder that is never deleted: the caller's own.
    """
    ages, sizes = {}, {}
    for path in {*FEATURES.glob("*"), keep}:
        with suppress(FileNotFoundError):  # another process deletes folders too
            sizes[path] = sum(file.stat().st_size for file in path.glob("*.safetensors"))
            ages[path] = path.stat().st_mtime
    oldest_first = sorted(ages.keys() - {keep}, key=ages.__getitem__)
    while oldest_first and sum(sizes.values()) + needed > limit_bytes():
        oldest = oldest_first.pop(0)
        del sizes[oldest]
        shutil.rmtree(oldest, ignore_errors=True)
