"""Process fewer rows at once when a device runs out of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache

from pipeline.machine_errors import lacks_memory

Row = TypeVar("Row")
Result = TypeVar("Result")


def halve_when_out_of_memory(process: Callable[[Sequence[Row]], list[Result]], rows: Sequence[Row]) -> list[Result]:
    """Return `process(rows)`. When memory runs out, process each half of the rows instead, and halve again.

    Raises:
        RuntimeError, MemoryError: `process` raised it for a single row, or for another reason than memory.
    """
    try:
        return process(rows)
    except (RuntimeError, MemoryError) as error:
        if len(rows) == 1 or not lacks_memory(error):
            raise
    # Outside the except block: the error keeps the tensors of the failed call alive.
    clear_device_cache(garbage_collection=True)
    middle = len(rows) // 2
    halves = (rows[:middle], rows[middle:])
    return [result for half in halves for result in halve_when_out_of_memory(process, half)]
