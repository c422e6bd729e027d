"""The processes of one flow run, so that one word ends them all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Lock, Semaphore

from flows.execution import slots
from flows.execution.child_process import Child
from flows.execution.slots import Stopped
from pipeline.errors import UsageError


class Crew:
    """Starts children, each when it is its turn on the accelerator or on the processor, until the flow run is over."""

    def __init__(self) -> None:
        self._over = Event()
        self._lock = Lock()
        self._children: set[Child] = set()
        self._slots = slots.Slots(slots.devices(), self._over)
        self._cores = Semaphore(max(2, os.cpu_count() or 1))

    def declare_slots(self) -> None:
        """Tells Prefect how many accelerator slots this machine has."""
        self._slots.declare()

    @contextmanager
    def run(
        self, command: Sequence[str], env: Mapping[str, str], *, slot: str | None, devices: int = 1
    ) -> Iterator[Child]:
        """`command` as a child, once it has its turn; it ends with the block.

        Args:
            devices: how many accelerators it wants, if it wants that slot.

        Raises:
            Stopped: before it started, or while it ran, by `stop`.
            UsageError: there is no such slot, or there are never so many devices.
        """
        with self._turn(slot, devices) as visible:
            child = self._start(command, env | {"CUDA_VISIBLE_DEVICES": visible} if visible else env)
            try:
                with child:
                    yield child
            finally:
                with self._lock:
                    self._children.remove(child)
            if self._over.is_set():
                raise Stopped

    @contextmanager
    def _turn(self, slot: str | None, devices: int) -> Iterator[str]:
        match slot:
            case None:
                with self._cores:
                    yield ""
            case slots.GPU:
                with self._slots.take(devices) as visible:
                    yield visible
            case _:
                raise UsageError(f"dvc.yaml: there is no slot {slot!r}. Write 'slot: {slots.GPU}', or no slot.")

    def _start(self, command: Sequence[str], env: Mapping[str, str]) -> Child:
        with self._lock:
            if self._over.is_set():
                raise Stopped
            child = Child(command, env=env)
            self._children.add(child)
            return child

    def stop(self) -> None:
        """Ends every child, and starts none any more."""
        with self._lock:
            self._over.set()
            for child in self._children:
                child.let_go()
