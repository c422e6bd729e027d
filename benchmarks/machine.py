"""Describe the machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version

import torch


def describe_machine(libraries: Iterable[str] = ("torch", "transformers")) -> str:
    """Return the date, the processor and the versions of Python and some libraries, for the first line of a benchmark.

    The vector instructions of the processor decide the speed of matrix products: with AMX, training is several times
    faster than with AVX2.
    """
    processor = f"{os.cpu_count()} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    versions = (f"{library} {version(library)}" for library in libraries)
    return ", ".join([f"{datetime.now(UTC):%Y-%m-%d}", processor, f"Python {platform.python_version()}", *versions])
