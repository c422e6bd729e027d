"""Files that DVC writes in place, made fit to be read again where it was killed meanwhile.

With graph.py and cache.py, the one place that knows DVC's internals.
"""

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
"""Where a stage begins in dvc.lock."""


def mend(repo: Repo) -> None:
    """Makes `dvc.lock` and DVC's note of who reads and writes what readable again; touches them only if they are not.

    What was lost of `dvc.lock` is no loss of work: DVC takes the results of those stages from its cache.

    Raises:
        UsageError: `dvc.lock` waits for a person to resolve a conflict.
    """
    with lock_repo(repo):
        _mend_dvc_lock(Path(repo.root_dir) / "dvc.lock")
        with make_lock(
            str(Path(repo.tmp_dir) / RWLOCK_LOCK),
            tmp_dir=repo.tmp_dir,
            hardlink_lock=repo.config["core"].get("hardlink_lock", False),
        ):
            _mend_rwlock(Path(repo.tmp_dir) / RWLOCK_FILE)


def _mend_dvc_lock(path: Path) -> None:
    if not path.exists() or _is_dvc_lock(text := path.read_text(encoding="utf-8", errors="replace")):
        return
    if "<<<<<<< " in text:
        raise UsageError(
            f"{path.name} has the marks of a conflict that Git could not merge. Resolve it, as in any file."
        )
    while text and not _is_dvc_lock(text):
        stages = [*_STAGE.finditer(text)]
        text = text[: stages[-1].start()] if stages else ""
    if text:
        write_text(path, text)
    else:
        path.unlink()
    log.warning("dvc.lock was cut off; what it lacks now is taken from DVC's cache. Git has the last committed one.")


def _is_dvc_lock(text: str) -> bool:
    try:
        DVC_LOCK_SCHEMA(yaml.safe_load(text))
    except (yaml.YAMLError, Invalid):
        return False
    return True


def _mend_rwlock(path: Path) -> None:
    if not path.exists():
        return
    try:
        held = RWLOCK_SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, Invalid):
        # Only a process that was killed while it wrote can have left it so: we have the lock that it wrote under.
        path.unlink()
        return
    at_work = {
        "write": {place: holder for place, holder in held["write"].items() if _is_at_work(holder)},
        "read": {place: [*filter(_is_at_work, holders)] for place, holders in held["read"].items()},
    }
    if at_work != held:
        write_json(path, at_work)


def _is_at_work(holder: Mapping[str, Any]) -> bool:
    """DVC asks whether there is a process of that number, which after a restart may be any other one."""
    try:
        command = psutil.Process(holder["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return " ".join(command).endswith(" ".join(holder["cmd"].split()[1:]))
