"""The GPUs that a machine shows, and what torch can do with them.

torch is imported late: the flows ask for GPUs too, and do not load it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import Literal

from pipeline.errors import UsageError
from pipeline.machine_errors import lacks_memory

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
WHEELS = "https://download.pytorch.org/whl"

_SECONDS = 10  # that nvidia-smi may take; a broken GPU makes it hang
_GIB = 1 << 30

# The builds of torch 2.13 for NVIDIA: index name, the oldest driver that runs it, and the GPUs that it supports.
# Drivers: NVIDIA's CUDA compatibility guide; GPUs: the CUDA support matrix of torch's release notes.
_CUDA_13, _CUDA_12 = "cu130", "cu126"
_CUDA_13_DRIVER, _CUDA_12_DRIVER = 580, 525
_CUDA_13_CAPABILITY = 7.5


class DriverFailed(Exception):
    """nvidia-smi is installed and did not list the GPUs; the message is its own."""


@dataclass(frozen=True)
class Device:
    """The hardware that a training runs on."""

    name: str
    memory_gib: float  # of one GPU, or of the machine
    count: int = 1  # GPUs that share the training

    def __str__(self) -> str:
        return f"{self._names} ({self._memory})"

    def tags(self) -> dict[str, str]:
        """Tags of an MLflow run and of a version."""
        return {"device": self._names, "device.memory": self._memory}

    @property
    def _names(self) -> str:
        return self.name if self.count == 1 else f"{self.count} × {self.name}"

    @property
    def _memory(self) -> str:
        return f"{self.memory_gib:.1f} GiB"


def visible_devices() -> list[str] | None:
    """The entries of CUDA_VISIBLE_DEVICES; None where it is not set.

    CUDA stops reading at the first entry that names no device: an empty value or -1 hides all GPUs.
    """
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return None
    return [*takewhile(lambda device: device not in ("", "-1"), map(str.strip, visible.split(",")))]


def listed_gpus() -> list[str]:
    """The names of this machine's NVIDIA GPUs, in the driver's order; none without a driver.

    Raises:
        DriverFailed: nvidia-smi is installed and failed.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    listed = _nvidia_smi("--list-gpus")
    return re.findall(r"^GPU \d+: (.+?)(?: \(UUID: .*)?$", listed, re.MULTILINE)


def driver_version() -> str | None:
    """The version of NVIDIA's driver, such as 550.54.15; None where nvidia-smi does not say."""
    return next(iter(_queried("driver_version")), None)


def gpu_problem(*, compute: bool = True) -> str | None:
    """Why torch cannot use the GPU that the machine shows, and what to install; None if it can, or if there is no GPU.

    Args:
        compute: also run an operation on the GPU, which takes some of its memory until this process ends.
    """
    why = _why_unusable(compute)
    if why is None:
        return None
    shown = _shown_gpus()
    if not shown:
        return None
    import torch

    driver = driver_version()
    known = f"driver {driver}" if driver else "driver unknown"
    return f"{shown} ({known}), but torch {torch.__version__} cannot use it: {why}. {_what_to_install(driver)}"


def training_device(wanted: Literal["auto", "cpu"], *, processes: int = 1, compute: bool = True) -> Device:
    """The device that this process trains on. `cpu` hides the GPUs from this process and from those that it starts.

    Args:
        processes: that share the training, each with a GPU of its own.
        compute: as `gpu_problem` takes it.

    Raises:
        UsageError: the machine shows a GPU that torch cannot use.
    """
    if wanted == "cpu":
        os.environ[VISIBLE] = ""
    elif problem := gpu_problem(compute=compute):
        raise UsageError(f"{problem} To train on the CPU, set train.device: cpu in params.yaml.")
    import psutil
    import torch

    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(_own_gpu())
        return Device(gpu.name, gpu.total_memory / _GIB, processes)
    name = f"CPU, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return Device(name, psutil.virtual_memory().total / _GIB)


def inference_device() -> str:
    """The torch device for a model that is only read from: the GPU, or the CPU where torch cannot use one.

    Warns once where the machine shows a GPU that stays unused.
    """
    import torch

    if problem := gpu_problem():
        _warn_once(f"{problem} Until then, the CPU is used.")
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _why_unusable(compute: bool) -> str | None:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return "this build is for the CPU"
    try:
        if compute or not torch.cuda.is_available():
            torch.cuda.init()  # whose error says why
        if compute:
            torch.ones(1, device=_own_gpu()).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        if lacks_memory(error):  # another process fills it; the code that needs memory says so
            return None
        return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return None


def _own_gpu() -> str:
    """The GPU of this process, one of several that share a training."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _shown_gpus() -> str | None:
    """The GPU that the machine or the environment shows, as the start of a sentence; None without one."""
    visible = visible_devices()
    if visible == []:
        return None
    try:
        names = listed_gpus()
    except DriverFailed as error:
        _warn_once(f"nvidia-smi fails, so no GPU is used: {error}. Without a GPU, set {VISIBLE} to an empty value.")
        names = []
    if visible:
        here = f", nvidia-smi shows {', '.join(names)}" if names else ""
        return f"{VISIBLE}={os.environ[VISIBLE]} asks for a GPU{here}"
    return f"nvidia-smi shows {', '.join(names)}" if names else None


def _what_to_install(driver: str | None) -> str:
    import torch

    version, _, installed = torch.__version__.partition("+")
    major = int(driver.partition(".")[0]) if driver else _CUDA_13_DRIVER
    if major < _CUDA_12_DRIVER:
        return (
            f"Update the driver to {_CUDA_13_DRIVER} or newer; then run: {_install_command(version, _CUDA_13)} "
            f"({_index(_CUDA_13)})."
        )
    build = _CUDA_13 if major >= _CUDA_13_DRIVER and _oldest_capability() >= _CUDA_13_CAPABILITY else _CUDA_12
    if installed == build:
        return f"This build fits the driver: compare {VISIBLE} with `nvidia-smi --list-gpus`, or restart the machine."
    return f"Install the build for this driver: {_install_command(version, build)}."


def _install_command(version: str, build: str) -> str:
    # With its local version, or pip would find that the CPU's build satisfies it.
    return f'pip install "torch=={version}+{build}" --index-url {_index(build)}'


def _index(build: str) -> str:
    return f"{WHEELS}/{build}"


def _oldest_capability() -> float:
    """The lowest compute capability of this machine's GPUs, 7.0 for Volta; infinite where nvidia-smi does not say."""
    return min(map(float, _queried("compute_cap")), default=float("inf"))


def _queried(field: str) -> list[str]:
    """That field of each GPU, where nvidia-smi knows it."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        answer = _nvidia_smi(f"--query-gpu={field}", "--format=csv,noheader")
    except DriverFailed:
        return []
    return [line.strip() for line in answer.splitlines() if re.fullmatch(r"\s*\d[\d.]*\s*", line)]


def _nvidia_smi(*words: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *words], capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise DriverFailed(f"it gives no answer within {_SECONDS} s") from None
    except OSError as error:
        raise DriverFailed(str(error)) from None
    if done.returncode:
        said = " ".join((done.stdout.strip() or done.stderr.strip()).splitlines()) or f"exit code {done.returncode}"
        raise DriverFailed(said.rstrip("."))
    return done.stdout
