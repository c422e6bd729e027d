"""The room on the disk that what is computed once may take, of all models together."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.paths import FEATURES

_DEFAULT_LIMIT_GB = 10.0


def limit_bytes() -> int:
    """How much room the features of all models may take: `LECTERN_FEATURES_GB`; 0 switches them off.

    Raises:
        UsageError: it is not a number of gigabytes.
    """
    asked = os.environ.get("LECTERN_FEATURES_GB", str(_DEFAULT_LIMIT_GB))
    try:
        gigabytes = float(asked)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise UsageError(f"LECTERN_FEATURES_GB must be a number of gigabytes, 0 or more; it is {asked!r}.")
    return int(gigabytes * 1e9)


def make_room(wanted: int, keep: Path) -> None:
    """Removes the features that were not used for the longest time, until `wanted` bytes more are within the limit."""
    ages, size = {}, {}
    for path in {*FEATURES.glob("*"), keep}:
        with suppress(FileNotFoundError):  # another process makes room too
            size[path] = sum(file.stat().st_size for file in path.glob("*.safetensors"))
            ages[path] = path.stat().st_mtime
    folders = sorted(ages.keys() - {keep}, key=ages.__getitem__)
    while folders and sum(size.values()) + wanted > limit_bytes():
        oldest = folders.pop(0)
        del size[oldest]
        shutil.rmtree(oldest, ignore_errors=True)
