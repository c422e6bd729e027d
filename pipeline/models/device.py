"""Find the machine's GPUs, and explain why torch cannot use them.

Functions import torch only when they need it: the flows list GPUs without loading torch.
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

_TIMEOUT_SECONDS = 10  # nvidia-smi hangs on a broken GPU
_GIB = 1 << 30

# Builds of torch 2.13 for NVIDIA: index name, oldest driver, and lowest compute capability of a GPU.
# Sources: NVIDIA's CUDA compatibility guide for drivers, the CUDA support matrix of torch's release notes for GPUs.
_CUDA_13, _CUDA_12 = "cu130", "cu126"
_CUDA_13_DRIVER, _CUDA_12_DRIVER = 580, 525
_CUDA_13_CAPABILITY = 7.5


class DriverFailed(Exception):
    """nvidia-smi is installed but failed. The exception has its message."""


@dataclass(frozen=True)
class Device:
    """Hardware of a training."""

    name: str
    memory_gib: float  # memory of one GPU, or of the machine
    count: int = 1  # number of GPUs that share the training

    def __str__(self) -> str:
        return f"{self._names} ({self._memory})"

    def tags(self) -> dict[str, str]:
        """Return the tags for an MLflow run and a registered version."""
        return {"device": self._names, "device.memory": self._memory}

    @property
    def _names(self) -> str:
        return self.name if self.count == 1 else f"{self.count} × {self.name}"

    @property
    def _memory(self) -> str:
        return f"{self.memory_gib:.1f} GiB"


def visible_devices() -> list[str] | None:
    """Return the entries of CUDA_VISIBLE_DEVICES, or None if it is not set.

    CUDA ignores everything from the first invalid entry on, so an empty value or -1 hides all GPUs.
    """
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return None
    return [*takewhile(lambda device: device not in ("", "-1"), map(str.strip, visible.split(",")))]


def listed_gpus() -> list[str]:
    """List the names of this machine's NVIDIA GPUs in the driver's order. Without a driver, the list is empty.

    Raises:
        DriverFailed: nvidia-smi is installed but failed.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    listed = _nvidia_smi("--list-gpus")
    return re.findall(r"^GPU \d+: (.+?)(?: \(UUID: .*)?$", listed, re.MULTILINE)


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver, such as 550.54.15, or None if it is unknown."""
    return next(iter(_query("driver_version")), None)


def gpu_problem(*, compute: bool = True) -> str | None:
    """Explain why torch cannot use the machine's GPU, and what to install. Return None without a GPU or problem.

    Args:
        compute: Also run an operation on the GPU. This occupies some of its memory until the process ends.
    """
    reason = _why_unusable(compute)
    if reason is None:
        return None
    gpus = _describe_gpus()
    if not gpus:
        return None
    import torch

    driver = driver_version()
    version = f"driver {driver}" if driver else "driver unknown"
    return f"{gpus} ({version}), but torch {torch.__version__} cannot use it: {reason}. {_what_to_install(driver)}"


def training_device(setting: Literal["auto", "cpu"], *, processes: int = 1, compute: bool = True) -> Device:
    """Choose the device that this process trains on.

    Args:
        setting: `device` in `params.yaml`. `cpu` hides all GPUs from this process and its children.
        processes: Number of processes that share the training, each with its own GPU.
        compute: See `gpu_problem`.

    Raises:
        UsageError: The machine has a GPU that torch cannot use.
    """
    if setting == "cpu":
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
    """Return the torch device for inference: the GPU, or the CPU if torch cannot use a GPU.

    Log a warning, once, if the machine has a GPU that torch cannot use.
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
    """Return the reason why torch cannot use a GPU, or None if it can."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return "this build is for the CPU"
    try:
        if compute or not torch.cuda.is_available():
            torch.cuda.init()  # its error gives the reason
        if compute:
            torch.ones(1, device=_own_gpu()).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        if lacks_memory(error):  # another process uses it; the code that needs memory reports that
            return None
        return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return None


def _own_gpu() -> str:
    """Return the torch device of this process's GPU when several processes share a training."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _describe_gpus() -> str | None:
    """Describe the GPUs of the machine or the environment as the start of a sentence. Return None without a GPU."""
    visible = visible_devices()
    if visible == []:
        return None
    try:
        names = listed_gpus()
    except DriverFailed as error:
        _warn_once(
            f"nvidia-smi fails, so no GPU is used: {error}. Repair the driver, or set {VISIBLE} to an empty value to "
            "train on the CPU without this warning."
        )
        names = []
    if visible:
        listed = f", nvidia-smi shows {', '.join(names)}" if names else ""
        return f"{VISIBLE}={os.environ[VISIBLE]} selects a GPU{listed}"
    return f"nvidia-smi shows {', '.join(names)}" if names else None


def _what_to_install(driver: str | None) -> str:
    import torch

    version, _, installed = torch.__version__.partition("+")
    major = int(driver.partition(".")[0]) if driver else _CUDA_13_DRIVER
    if major < _CUDA_12_DRIVER:
        return (
            f"Update the driver to {_CUDA_13_DRIVER} or newer, then run: {_install_command(version, _CUDA_13)} "
            f"({_index(_CUDA_13)})."
        )
    build = _CUDA_13 if major >= _CUDA_13_DRIVER and _oldest_capability() >= _CUDA_13_CAPABILITY else _CUDA_12
    if installed == build:
        return f"This build fits the driver. Compare {VISIBLE} with `nvidia-smi --list-gpus`, or restart the machine."
    return f"Install the build for this driver: {_install_command(version, build)}."


def _install_command(version: str, build: str) -> str:
    # Without the local version (+cu130), the installed CPU build would satisfy pip.
    return f'pip install "torch=={version}+{build}" --index-url {_index(build)}'


def _index(build: str) -> str:
    return f"{WHEELS}/{build}"


def _oldest_capability() -> float:
    """Return the lowest compute capability of the GPUs, such as 7.0 for Volta. Unknown ones count as infinite."""
    return min(map(float, _query("compute_cap")), default=float("inf"))


def _query(field: str) -> list[str]:
    """Return a field of nvidia-smi for each GPU that has a number for it."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        answer = _nvidia_smi(f"--query-gpu={field}", "--format=csv,noheader")
    except DriverFailed:
        return []
    return [line.strip() for line in answer.splitlines() if re.fullmatch(r"\s*\d[\d.]*\s*", line)]


def _nvidia_smi(*arguments: str) -> str:
    """Run nvidia-smi and return its output.

    Raises:
        DriverFailed: It fails or hangs.
    """
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise DriverFailed(f"no answer within {_TIMEOUT_SECONDS} s") from None
    except OSError as error:
        raise DriverFailed(str(error)) from None
    if done.returncode:
        output = " ".join((done.stdout.strip() or done.stderr.strip()).splitlines())
        raise DriverFailed(output.rstrip(".") or f"exit code {done.returncode}")
    return done.stdout
