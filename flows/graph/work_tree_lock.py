"""One flow run at a time in a work tree, whoever started it and wherever it reports to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from pipeline.files import make_folder
from pipeline.paths import STATE


def work_tree_lock() -> FileLock:
    """Whoever holds it may take it again."""
    make_folder(STATE)
    return FileLock((STATE / "train.lock").resolve(), is_singleton=True)


@contextmanager
def alone_in_work_tree(say: Callable[[str], None]) -> Iterator[None]:
    """Waits until no other process runs a flow in this work tree."""
    lock = work_tree_lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("Another run is at work in this work tree; waiting for it to end.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
