"""Turns on the accelerator: as many stages at once as there are devices."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from threading import Condition, Event, Lock

import httpx
from prefect import get_client, get_run_logger
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency

from flows.services.prefect_server import is_unavailable, warn_if_not_stored
from pipeline.errors import UsageError
from pipeline.models.device import DriverFailed, listed_gpus, visible_devices

GPU = "gpu"
LEASE = 60
"""Seconds after which the slot of a process that died is free again; a live one renews its lease in time.

Prefect lends for no less, and looks every five seconds for what has run out (prefect.toml).
"""

LOOK_AGAIN = 3.0
"""Seconds between looks at whether another flow run has given its slot back."""


class Stopped(Exception):
    """The flow run is over; nothing of it is to start any more."""

    def __str__(self) -> str:
        return "The flow run was stopped."


class Slots:
    """The slots of one flow run, one a device, until it is `over`.

    Other flow runs on this machine compete for each device through its Prefect limit.
    """

    def __init__(self, devices: Sequence[str], over: Event) -> None:
        self._slots = Counter(devices)
        self._free = Counter(devices)
        self._given_back = Condition()
        self._one_chooses = Lock()
        self._over = over
        self._shared = limit_name()

    def declare(self) -> None:
        """Tells Prefect how many there are."""
        if self._shared:
            with get_client(sync_client=True) as client:
                for device, count in self._slots.items():
                    client.upsert_global_concurrency_limit_by_name(self._limit(device), count)

    @contextmanager
    def take(self, wanted: int = 1) -> Iterator[str]:
        """Waits for as many slots and yields their devices, as `CUDA_VISIBLE_DEVICES` names them; empty for the CPU.

        Args:
            wanted: by a stage of so many processes, each with a device of its own. On a CPU they share one slot.

        Raises:
            UsageError: there are never so many.
            Stopped: the flow run is over.
        """
        accelerators = sum(device != "" for device in self._slots)
        wanted = wanted if accelerators else 1
        if wanted > accelerators > 0:
            raise UsageError(
                f"In params.yaml, processes is {wanted}, and there are {accelerators} devices to be taken, as "
                "CUDA_VISIBLE_DEVICES and LECTERN_GPU_SLOTS say. Lower it."
            )
        with self._one_chooses:  # or whoever wants several would wait for ever behind those who want one
            devices, lease = self._choose(wanted)
        try:
            with lease:
                yield ",".join(devices)
        finally:
            with self._given_back:
                self._free.update(devices)
                self._given_back.notify()

    def _choose(self, wanted: int) -> tuple[list[str], ExitStack]:
        told = ""
        while not self._over.is_set():
            with self._given_back:
                here = [device for device, count in self._free.items() if count]
                if len(here) < wanted:
                    self._given_back.wait(LOOK_AGAIN)
                    continue
            why = "Waiting for another flow run to give its slot back."
            try:
                # Looking before asking: Prefect's own waiting says nothing, and cannot be stopped.
                free = self._free_elsewhere(here)[:wanted]
                if len(free) == wanted:
                    with suppress(TimeoutError):
                        return free, self._taken(free)
            except (httpx.HTTPError, ConcurrencySlotAcquisitionError) as error:
                if not is_unavailable(error):
                    raise
                why = "Prefect's server, which lends the slots, does not answer. Waiting for it."
            if told != why:
                get_run_logger().info(why)
                told = why
            self._over.wait(LOOK_AGAIN)
        raise Stopped

    def _taken(self, devices: list[str]) -> ExitStack:
        """The lease of a slot of each; of none where another run was quicker, which raises TimeoutError."""
        lease = ExitStack()
        if self._shared:
            lease.enter_context(_leased([self._limit(device) for device in devices]))
        with self._given_back:
            self._free.subtract(devices)
        return lease

    def _free_elsewhere(self, devices: list[str]) -> list[str]:
        """Those of which no other flow run holds all slots."""
        if not self._shared:
            return devices
        with get_client(sync_client=True) as client:
            limits = [client.read_global_concurrency_limit_by_name(self._limit(device)) for device in devices]
        return [device for device, each in zip(devices, limits, strict=True) if each.active_slots < each.limit]

    def _limit(self, device: str) -> str:
        return f"{self._shared}-{re.sub('[^0-9A-Za-z_-]', '-', device)}" if device else self._shared


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
    """How the Prefect limits begin for which all runs compete that share devices; empty where this one has its own.

    By the machine, unless `LECTERN_GPU_LIMIT` says otherwise: the host name of a container never returns.
    """
    return os.environ.get("LECTERN_GPU_LIMIT", f"{GPU}-{platform.node()}")


@contextmanager
def _leased(limits: list[str]) -> Iterator[None]:
    lease = ExitStack()
    # When the server is away for a while and a lease runs out, hours of training go on.
    lease.enter_context(
        concurrency(
            limits,
            strict=True,
            timeout_seconds=30,
            lease_duration=LEASE,
            raise_on_lease_renewal_failure=False,
        )
    )
    try:
        yield
    finally:
        # A server that is away shall not undo a stage that is done: the lease runs out by itself.
        with warn_if_not_stored("a slot back"):
            lease.close()


def devices() -> list[str]:
    """The device of each slot, as `CUDA_VISIBLE_DEVICES` names it; empty stands for the CPU.

    `LECTERN_GPU_SLOTS` sets how many slots there are; several then share a device, or some devices rest.

    Raises:
        UsageError: `LECTERN_GPU_SLOTS` is not a positive number.
    """
    found = _cuda_devices() or [""]
    asked = os.environ.get("LECTERN_GPU_SLOTS")
    if asked is None:
        return found
    if not asked.isdecimal() or int(asked) < 1:
        raise UsageError(f"LECTERN_GPU_SLOTS must be 1 or more; it is {asked!r}.")
    return [found[slot % len(found)] for slot in range(int(asked))]


def _cuda_devices() -> list[str]:
    visible = visible_devices()
    if visible is not None:
        return visible
    try:
        return [str(number) for number, _ in enumerate(listed_gpus())]
    except DriverFailed:  # each stage says so
        return []
