"""What workbooks held when they were trained on, so that it can be said whether one is newer.

dvc.lock names the last one alone. A run by hand puts another there, and the project's own is none the newer for it.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from pipeline.files import write_json
from pipeline.paths import STATE

_LOCK = Path("dvc.lock")
_BEFORE = STATE / "trained_on.json"


def trained_on(workbook: Path) -> str | None:
    """The hash of what `workbook` held when it was trained on, last or before runs by hand; None if it never was."""
    return {**_noted(), **_last()}.get(workbook.as_posix())


def note_last() -> None:
    """Notes which workbook was trained on last, before a run of another one makes dvc.lock forget it."""
    write_json(_BEFORE, {**_noted(), **_last()})


def _noted() -> dict[str, str]:
    return json.loads(_BEFORE.read_text(encoding="utf-8")) if _BEFORE.is_file() else {}


def _last() -> dict[str, str]:
    """The hashes of what the stage ingest has read, by path: the workbook's, and those of its code."""
    lock = yaml.safe_load(_LOCK.read_text(encoding="utf-8")) if _LOCK.is_file() else None
    read = (lock or {}).get("stages", {}).get("ingest", {}).get("deps", [])
    return {each["path"]: each["md5"] for each in read if "md5" in each}
