"""The child processes of one flow run, which all end together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Lock, Semaphore

from flows.execution import slots
from flows.execution.child_process import Child
from flows.execution.slots import Stopped
from pipeline.errors import UsageError


class RunProcesses:
    """Starts children, each when an accelerator or a processor is free for it, until the flow run ends."""

    def __init__(self) -> None:
        self._ended = Event()
        self._lock = Lock()
        self._children: set[Child] = set()
        devices = slots.devices()
        self._slots = slots.Slots(devices, self._ended)
        self._threads = str(slots.cpu_threads(len(devices)))
        self._cores = Semaphore(max(2, os.cpu_count() or 1))

    def declare_slots(self) -> None:
        """Tell Prefect how many accelerator slots this machine has."""
        self._slots.declare()

    @contextmanager
    def run(
        self, command: Sequence[str], env: Mapping[str, str], *, slot: str | None, devices: int = 1, urgency: int = 0
    ) -> Iterator[Child]:
        """Yield `command` as a child process once its slot is free; end the process with the block.

        Args:
            command: the program and its arguments.
            env: all its environment variables; those of its slot are added.
            slot: `gpu`, or None for a processor.
            devices: number of accelerators, if the slot is `gpu`.
            urgency: of the commands that wait for a slot, the most urgent starts first.

        Raises:
            Stopped: `stop` was called before the process started, or while it ran.
            UsageError: no such slot exists, or this machine has fewer devices.
        """
        with self._turn(slot, devices, urgency) as visible:
            child = self._start(command, {**env, **self._of_slot(visible, env)})
            try:
                with child:
                    yield child
            finally:
                with self._lock:
                    self._children.remove(child)
            if self._ended.is_set():
                raise Stopped

    @contextmanager
    def _turn(self, slot: str | None, devices: int, urgency: int) -> Iterator[str | None]:
        match slot:
            case None:
                with self._cores:
                    yield None
            case slots.GPU:
                with self._slots.take(devices, urgency) as visible:
                    yield visible
            case _:
                raise UsageError(f"dvc.yaml: there is no slot {slot!r}. Write 'slot: {slots.GPU}', or no slot.")

    def _of_slot(self, visible: str | None, env: Mapping[str, str]) -> dict[str, str]:
        """Return the environment variables of a slot: its devices, or its share of the processors."""
        if visible:
            return {"CUDA_VISIBLE_DEVICES": visible}
        return {} if visible is None or "OMP_NUM_THREADS" in env else {"OMP_NUM_THREADS": self._threads}

    def _start(self, command: Sequence[str], env: Mapping[str, str]) -> Child:
        with self._lock:
            if self._ended.is_set():
                raise Stopped
            child = Child(command, env=env)
            self._children.add(child)
            return child

    def stop(self) -> None:
        """End all children, and start no more."""
        with self._lock:
            self._ended.set()
            for child in self._children:
                child.end()
