"""Slots on the accelerators: as many stages run at once as there are devices. A CPU has one or two slots."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from threading import Condition, Event, Lock

import httpx
import psutil
from prefect import get_client, get_run_logger
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency

from flows.services.prefect_server import is_unavailable, warn_if_not_stored
from pipeline.errors import UsageError
from pipeline.models.device import DriverFailed, listed_gpus, visible_devices

GPU = "gpu"
LEASE_SECONDS = 60
"""Seconds until the slot of a killed process is free again. A running process renews its lease in time.

Prefect's shortest lease is 60 s. Its server looks for expired leases every five seconds (prefect.toml).
"""

POLL_SECONDS = 3.0
"""Seconds between checks whether another flow run has returned its slot."""

_CPU_SLOT_BYTES = 6 << 30
"""Memory of a slot of the CPU: several times what the models of params.yaml need for training."""


class Stopped(Exception):
    """The flow run has ended and starts nothing more."""

    def __str__(self) -> str:
        return "The flow run was stopped."


_Ticket = tuple[int, int]
"""A place in the queue for slots: negative urgency, and number of arrival."""


class Slots:
    """The slots of one flow run, until `ended` is set.

    Other flow runs on this machine compete for each device through a concurrency limit in Prefect.

    Args:
        devices: the device of each slot.
        ended: is set when the flow run ends.
    """

    def __init__(self, devices: Sequence[str], ended: Event) -> None:
        self._slots = Counter(devices)
        self._free = Counter(devices)
        self._returned = Condition()
        self._choosing = Lock()
        self._arrivals = count()
        self._waiting: set[_Ticket] = set()
        self._ended = ended
        self._prefix = limit_prefix()

    def declare(self) -> None:
        """Tell Prefect how many slots each device has."""
        if self._prefix:
            with get_client(sync_client=True) as client:
                for device, count in self._slots.items():
                    client.upsert_global_concurrency_limit_by_name(self._limit(device), count)

    @contextmanager
    def take(self, wanted: int = 1, urgency: int = 0) -> Iterator[str]:
        """Wait for slots and yield their devices as a value of `CUDA_VISIBLE_DEVICES`; an empty text is the CPU.

        Args:
            wanted: number of devices, one for each process of a stage. On a CPU, all processes share one slot.
            urgency: of those that wait, the most urgent is served first, and of these the first to come.

        Raises:
            UsageError: there are fewer devices.
            Stopped: the flow run has ended.
        """
        accelerators = sum(device != "" for device in self._slots)
        wanted = wanted if accelerators else 1
        if wanted > accelerators > 0:
            raise UsageError(
                f"In params.yaml, processes is {wanted}, and there are {accelerators} devices, by "
                "CUDA_VISIBLE_DEVICES and LECTERN_GPU_SLOTS. Lower it."
            )
        ticket = (-urgency, next(self._arrivals))
        self._waiting.add(ticket)
        try:
            devices, lease = self._choose(wanted, ticket)
        finally:
            with self._returned:
                self._waiting.remove(ticket)
                self._returned.notify_all()
        try:
            with lease:
                yield ",".join(devices)
        finally:
            with self._returned:
                self._free.update(devices)
                self._returned.notify_all()

    def _choose(self, wanted: int, ticket: _Ticket) -> tuple[list[str], ExitStack]:
        logged = ""
        while not self._ended.is_set():
            with self._returned:
                self._returned.wait_for(lambda: self._next_devices(wanted, ticket), POLL_SECONDS)
            why = "Waiting for another flow run to return its slot."
            try:
                with self._choosing:
                    free_here = self._next_devices(wanted, ticket)
                    if not free_here:
                        continue
                    # A check before the request: Prefect's own waiting logs nothing and cannot be interrupted.
                    free = self._free_elsewhere(free_here)[:wanted]
                    if len(free) == wanted:
                        with suppress(TimeoutError):
                            return free, self._lease(free)
            except (httpx.HTTPError, ConcurrencySlotAcquisitionError) as error:
                if not is_unavailable(error):
                    raise
                why = "Prefect's server, which manages the slots, does not answer. Waiting for it."
            if logged != why:
                get_run_logger().info(why)
                logged = why
            self._ended.wait(POLL_SECONDS)
        raise Stopped

    def _next_devices(self, wanted: int, ticket: _Ticket) -> list[str]:
        """Return the free devices if they are enough and nobody is before `ticket`, else none.

        Nobody overtakes a stage that waits for several devices.
        """
        free = [device for device, slots in self._free.items() if slots]
        return free if len(free) >= wanted and ticket == min(self._waiting) else []

    def _lease(self, devices: list[str]) -> ExitStack:
        """Take a slot of each device.

        Raises:
            TimeoutError: another flow run was quicker; no slot is taken.
        """
        lease = ExitStack()
        if self._prefix:
            lease.enter_context(_leased([self._limit(device) for device in devices]))
        with self._returned:
            self._free.subtract(devices)
        return lease

    def _free_elsewhere(self, devices: list[str]) -> list[str]:
        """Return the devices of which other flow runs do not hold all slots."""
        if not self._prefix:
            return devices
        with get_client(sync_client=True) as client:
            limits = [client.read_global_concurrency_limit_by_name(self._limit(device)) for device in devices]
        return [device for device, each in zip(devices, limits, strict=True) if each.active_slots < each.limit]

    def _limit(self, device: str) -> str:
        return f"{self._prefix}-{re.sub('[^0-9A-Za-z_-]', '-', device)}" if device else self._prefix


@contextmanager
def on_a_device() -> Iterator[None]:
    """Hold the slot of a device for the block; this process and its children see only that device.

    For work in this process, before it first uses CUDA. On a machine without accelerators, the block runs at once.
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


def limit_prefix() -> str:
    """Return the prefix of the Prefect limits for runs that share devices; an empty text if this run has its own.

    It names the machine, unless `LECTERN_GPU_LIMIT` is set: the host name of a container changes each time.
    """
    return os.environ.get("LECTERN_GPU_LIMIT", f"{GPU}-{platform.node()}")


@contextmanager
def _leased(limits: list[str]) -> Iterator[None]:
    lease = ExitStack()
    # If the server is away and a lease expires, hours of training must continue.
    lease.enter_context(
        concurrency(
            limits,
            strict=True,
            timeout_seconds=30,
            lease_duration=LEASE_SECONDS,
            raise_on_lease_renewal_failure=False,
        )
    )
    try:
        yield
    finally:
        # An absent server must not fail a stage that is done. Its lease expires by itself.
        with warn_if_not_stored("a slot back"):
            lease.close()


def devices() -> list[str]:
    """Return the device of each slot, as `CUDA_VISIBLE_DEVICES` names it; an empty text is the CPU.

    `LECTERN_GPU_SLOTS` sets the number of slots: several may share a device, or some devices stay unused.

    Raises:
        UsageError: `LECTERN_GPU_SLOTS` is not a positive number.
    """
    found = _cuda_devices() or [""] * _cpu_slots()
    slots = os.environ.get("LECTERN_GPU_SLOTS")
    if slots is None:
        return found
    if not slots.isdecimal() or int(slots) < 1:
        raise UsageError(f"LECTERN_GPU_SLOTS must be 1 or more; it is {slots!r}.")
    return [found[slot % len(found)] for slot in range(int(slots))]


def _cpu_slots() -> int:
    """Return 2 if the machine has two processors and memory for two trainings, else 1.

    Two stages of half the threads are quicker than one after the other: a stage uses one thread for much of its time.
    """
    enough = (os.cpu_count() or 1) >= 2 and psutil.virtual_memory().total >= 2 * _CPU_SLOT_BYTES
    return 2 if enough else 1


def cpu_threads(slots: int) -> int:
    """Return the threads of a stage in one of `slots` slots of the CPU."""
    return max(1, (os.cpu_count() or 1) // slots)


def _cuda_devices() -> list[str]:
    visible = visible_devices()
    if visible is not None:
        return visible
    try:
        return [str(number) for number, _ in enumerate(listed_gpus())]
    except DriverFailed:  # each stage reports it
        return []
