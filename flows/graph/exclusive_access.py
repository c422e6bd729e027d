"""Being alone in a work tree, for what must not happen while something of it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.repo import Repo
from filelock import FileLock, Timeout

from flows.graph.cache import idle_repo
from flows.graph.plan import Busy
from flows.graph.work_tree_lock import work_tree_lock
from pipeline.errors import TemporaryFailure
from pipeline.paths import REGISTRY_LOCK


@contextmanager
def nothing_under_way() -> Iterator[Repo]:
    """While the block runs, no stage does, no run of the flow begins, and no version is registered or promoted.

    Yields the DVC project.

    Raises:
        TemporaryFailure: one is under way.
        UsageError: DVC cannot read the project.
    """
    try:
        with work_tree_lock().acquire(timeout=0), FileLock(REGISTRY_LOCK), idle_repo(Path.cwd()) as repo:
            yield repo
    except Timeout:
        raise TemporaryFailure(_wait("`lectern run`, or the nightly one, is at work in this work tree.")) from None
    except Busy as busy:
        raise TemporaryFailure(_wait(f"DVC is at work in this work tree. {busy}")) from None


def _wait(why: str) -> str:
    return f"{why}\nNothing was touched. Give the same command again when it has ended."
