"""Locks on a work tree: one flow run at a time, and work that must not meet a running stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.graph.cache import IdleProject, idle_project
from flows.graph.plan import Busy
from pipeline.errors import TemporaryFailure
from pipeline.files import make_folder
from pipeline.paths import REGISTRY_LOCK, STATE


def work_tree_lock() -> FileLock:
    """Return the lock that a flow run holds; the process that holds it may acquire it again."""
    make_folder(STATE)
    return FileLock((STATE / "train.lock").resolve(), is_singleton=True)


@contextmanager
def only_run_in_work_tree(say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other process runs a flow in this work tree, and hold the lock for the block.

    Args:
        say: shows a message to the user if there is a wait.
    """
    lock = work_tree_lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("Another run is using this work tree; waiting for it to end.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def exclusive_access() -> Iterator[IdleProject]:
    """Yield the project; during the block no stage runs, no flow run starts and no version is registered or promoted.

    Raises:
        TemporaryFailure: a stage, a flow run or a promotion is running.
        UsageError: DVC cannot read the project.
    """
    try:
        with work_tree_lock().acquire(timeout=0), FileLock(REGISTRY_LOCK), idle_project(Path.cwd()) as project:
            yield project
    except Timeout:
        raise TemporaryFailure(_try_later("`lectern run` or a scheduled run is at work in this work tree.")) from None
    except Busy as busy:
        raise TemporaryFailure(_try_later(f"DVC is at work in this work tree. {busy}")) from None


def _try_later(why: str) -> str:
    return f"{why}\nNothing was changed. Wait for it to end, then run the same command again."
