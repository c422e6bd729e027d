"""What to do where a device has too little memory for all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache

from pipeline.machine_errors import lacks_memory

T = TypeVar("T")
R = TypeVar("R")


def in_halves(work: Callable[[Sequence[T]], list[R]], rows: Sequence[T]) -> list[R]:
    """What `work` gives for `rows`; where that is too much for the memory, for their halves, and for halves of these.

    Raises:
        RuntimeError, MemoryError: as `work` raises it: one row is too much already, or it is no matter of memory.
    """
    try:
        return work(rows)
    except (RuntimeError, MemoryError) as error:
        if len(rows) == 1 or not lacks_memory(error):
            raise
    # Here, since the error holds on to the tensors of the work that broke.
    clear_device_cache(garbage_collection=True)
    middle = len(rows) // 2
    return in_halves(work, rows[:middle]) + in_halves(work, rows[middle:])
