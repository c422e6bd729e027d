"""Repair of the files that DVC writes in place, which a killed DVC leaves incomplete."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml
from dvc.lock import make_lock
from dvc.repo import Repo, lock_repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK
from dvc.rwlock import SCHEMA as RWLOCK_SCHEMA
from dvc.schema import COMPILED_LOCKFILE_SCHEMA as DVC_LOCK_SCHEMA
from voluptuous import Invalid

from pipeline.errors import UsageError
from pipeline.files import write_json, write_text

log = logging.getLogger(__name__)

_STAGE = re.compile(r"^ {2}\S", re.MULTILINE)
"""The start of a stage in dvc.lock."""


def repair(repo: Repo) -> None:
    """Make `dvc.lock` and `.dvc/tmp/rwlock` readable again if a killed process left them incomplete.

    Stages that are lost from `dvc.lock` do not run again: DVC restores their results from its cache.

    Raises:
        UsageError: `dvc.lock` has a merge conflict that a person must resolve.
    """
    with lock_repo(repo):
        _repair_dvc_lock(Path(repo.root_dir) / "dvc.lock")
        with make_lock(
            str(Path(repo.tmp_dir) / RWLOCK_LOCK),
            tmp_dir=repo.tmp_dir,
            hardlink_lock=repo.config["core"].get("hardlink_lock", False),
        ):
            _repair_rwlock(Path(repo.tmp_dir) / RWLOCK_FILE)


def _repair_dvc_lock(path: Path) -> None:
    if not path.exists() or _is_dvc_lock(text := path.read_text(encoding="utf-8", errors="replace")):
        return
    if "<<<<<<< " in text:
        raise UsageError(
            f"{path.name} has the conflict markers of a Git merge. Resolve the conflict, then run this again."
        )
    while text and not _is_dvc_lock(text):
        stages = [*_STAGE.finditer(text)]
        text = text[: stages[-1].start()] if stages else ""
    if text:
        write_text(path, text)
    else:
        path.unlink()
    log.warning("dvc.lock was incomplete and has been repaired. DVC restores the stages that it lacks from its cache.")


def _is_dvc_lock(text: str) -> bool:
    try:
        DVC_LOCK_SCHEMA(yaml.safe_load(text))
    except (yaml.YAMLError, Invalid):
        return False
    return True


def _repair_rwlock(path: Path) -> None:
    if not path.exists():
        return
    try:
        held = RWLOCK_SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, Invalid):
        # We hold the lock under which DVC writes this file, so its writer was killed.
        path.unlink()
        return
    still_held = {
        "write": {place: holder for place, holder in held["write"].items() if _is_running(holder)},
        "read": {place: [*filter(_is_running, holders)] for place, holders in held["read"].items()},
    }
    if still_held != held:
        write_json(path, still_held)


def _is_running(holder: Mapping[str, Any]) -> bool:
    """Return whether the DVC process that holds a path still runs: DVC compares only its id, which may be reused."""
    try:
        command = psutil.Process(holder["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return " ".join(command).endswith(" ".join(holder["cmd"].split()[1:]))
