"""Turns on the accelerator: as many stages at once as there are devices."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from queue import SimpleQueue
from threading import Event, Lock

from prefect import get_client, get_run_logger
from prefect.concurrency.sync import concurrency

from pipeline.errors import Misused

GPU = "gpu"
LEASE = 60
"""Seconds after which the slot of a process that died is free again; a live one renews its lease in time."""

LOOK_AGAIN = 3.0
"""Seconds between looks at whether another flow run has given its slot back."""


class Stopped(Exception):
    """The flow run is over; nothing of it is to start any more."""

    def __str__(self) -> str:
        return "The flow run was stopped."


class Slots:
    """The slots of one flow run, one a device, until it is `over`.

    Other flow runs on this machine compete for the devices through Prefect's limit.
    """

    def __init__(self, devices: Sequence[str], over: Event) -> None:
        self._count = len(devices)
        self._accelerators = len(set(filter(None, devices)))
        self._free: SimpleQueue[str] = SimpleQueue()
        self._one_chooses = Lock()
        self._over = over
        self._limit = limit_name()
        for device in devices:
            self._free.put(device)

    def declare(self) -> None:
        """Tells Prefect how many there are."""
        if self._limit:
            with get_client(sync_client=True) as client:
                client.upsert_global_concurrency_limit_by_name(self._limit, self._count)

    @contextmanager
    def take(self, wanted: int = 1) -> Iterator[str]:
        """Waits for as many slots and yields their devices, as `CUDA_VISIBLE_DEVICES` names them; empty for the CPU.

        Args:
            wanted: by a stage of so many processes, each with a device of its own. On a CPU they share one slot.

        Raises:
            Misused: there are never so many.
            Stopped: the flow run is over.
        """
        wanted = wanted if self._accelerators else 1
        if wanted > self._accelerators > 0:
            raise Misused(
                f"In params.yaml, processes is {wanted}, and there are {self._accelerators} devices to be taken, as "
                "CUDA_VISIBLE_DEVICES and LECTERN_GPU_SLOTS say. Lower it."
            )
        # Our own queue hands a slot on at once; Prefect, asked by all who wait, would let it lie for seconds.
        with self._one_chooses:  # or two that want several would each hold what the other waits for
            devices = self._distinct(wanted)
        try:
            with ExitStack() as lease:
                if self._limit:
                    self._lease(lease, self._limit, wanted)
                yield ",".join(devices)
        finally:
            for device in devices:
                self._free.put(device)

    def _distinct(self, wanted: int) -> list[str]:
        chosen, others = [], []
        while len(chosen) < wanted:
            device = self._free.get()
            (others if device in chosen else chosen).append(device)
        for device in others:
            self._free.put(device)
        return chosen

    def _lease(self, stack: ExitStack, limit: str, wanted: int) -> None:
        told = False
        while not self._over.is_set():
            # Looking before asking: Prefect's own waiting says nothing, and cannot be stopped.
            if _free(limit) >= wanted:
                with suppress(TimeoutError):
                    stack.enter_context(_leased(limit, wanted))
                    return
            if not told:
                get_run_logger().info("Waiting for another flow run to give its slot back.")
                told = True
            self._over.wait(LOOK_AGAIN)
        raise Stopped


@contextmanager
def on_a_device() -> Iterator[None]:
    """Waits for a slot where there are accelerators: in the block, this process and its children see that device alone.

    For what computes in this process too, before anything of CUDA is at work here. A processor has room for it.
    """
    found = devices()
    if not any(found):
        yield
        return
    own = Slots(found, Event())
    own.declare()
    with own.take() as visible:
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
        try:
            yield
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def limit_name() -> str:
    """That of the Prefect limit for which all runs compete that share devices; empty where this one has its own.

    One a machine, unless `LECTERN_GPU_LIMIT` says otherwise: the host name of a container never returns.
    """
    return os.environ.get("LECTERN_GPU_LIMIT", f"{GPU}-{platform.node()}")


def _leased(limit: str, wanted: int) -> AbstractContextManager[None]:
    # When the server is away for a while and a lease runs out, hours of training go on.
    return concurrency(
        limit,
        occupy=wanted,
        strict=True,
        timeout_seconds=30,
        lease_duration=LEASE,
        raise_on_lease_renewal_failure=False,
    )


def _free(limit: str) -> int:
    with get_client(sync_client=True) as client:
        now = client.read_global_concurrency_limit_by_name(limit)
    return now.limit - now.active_slots


def devices() -> list[str]:
    """The device of each slot, as `CUDA_VISIBLE_DEVICES` names it; empty stands for the CPU.

    `LECTERN_GPU_SLOTS` sets how many slots there are; several then share a device, or some devices rest.

    Raises:
        Misused: `LECTERN_GPU_SLOTS` is not a positive number.
    """
    found = _cuda_devices() or [""]
    asked = os.environ.get("LECTERN_GPU_SLOTS")
    if asked is None:
        return found
    if not asked.isdecimal() or int(asked) < 1:
        raise Misused(f"LECTERN_GPU_SLOTS must be 1 or more; it is {asked!r}.")
    return [found[slot % len(found)] for slot in range(int(asked))]


def _cuda_devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
