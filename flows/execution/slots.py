"""Slots on the accelerators: as many stages run at once as there are devices."""

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
LEASE_SECONDS = 60
"""Seconds until the slot of a killed process is free again. A running process renews its lease in time.

Prefect's shortest lease is 60 s. Its server looks for expired leases every five seconds (prefect.toml).
"""

POLL_SECONDS = 3.0
"""Seconds between checks whether another flow run has returned its slot."""


class Stopped(Exception):
    """The flow run has ended and starts nothing more."""

    def __str__(self) -> str:
        return "The flow run was stopped."


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
        self._ended = ended
        self._prefix = limit_prefix()

    def declare(self) -> None:
        """Tell Prefect how many slots each device has."""
        if self._prefix:
            with get_client(sync_client=True) as client:
                for device, count in self._slots.items():
                    client.upsert_global_concurrency_limit_by_name(self._limit(device), count)

    @contextmanager
    def take(self, wanted: int = 1) -> Iterator[str]:
        """Wait for slots and yield their devices as a value of `CUDA_VISIBLE_DEVICES`; an empty text is the CPU.

        Args:
            wanted: number of devices, one for each process of a stage. On a CPU, all processes share one slot.

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
        with self._choosing:  # one at a time, so that others do not keep overtaking a stage that needs several
            devices, lease = self._choose(wanted)
        try:
            with lease:
                yield ",".join(devices)
        finally:
            with self._returned:
                self._free.update(devices)
                self._returned.notify()

    def _choose(self, wanted: int) -> tuple[list[str], ExitStack]:
        logged = ""
        while not self._ended.is_set():
            with self._returned:
                free_here = [device for device, count in self._free.items() if count]
                if len(free_here) < wanted:
                    self._returned.wait(POLL_SECONDS)
                    continue
            why = "Waiting for another flow run to return its slot."
            try:
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
    found = _cuda_devices() or [""]
    slots = os.environ.get("LECTERN_GPU_SLOTS")
    if slots is None:
        return found
    if not slots.isdecimal() or int(slots) < 1:
        raise UsageError(f"LECTERN_GPU_SLOTS must be 1 or more; it is {slots!r}.")
    return [found[slot % len(found)] for slot in range(int(slots))]


def _cuda_devices() -> list[str]:
    visible = visible_devices()
    if visible is not None:
        return visible
    try:
        return [str(number) for number, _ in enumerate(listed_gpus())]
    except DriverFailed:  # each stage reports it
        return []
