"""What the tests of the flows do to a toy project."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

MakeProject = Callable[[str], Path]
"""Makes a project of a dvc.yaml, and makes it the working directory."""


TWO_STAGES = """
    stages:
      one:
        cmd: echo one >> ran.txt && cp source.txt one.txt
        deps: [source.txt]
        outs: [one.txt]
      two:
        cmd: echo two >> ran.txt && cp one.txt two.txt
        deps: [one.txt]
        outs: [two.txt]
"""
"""A dvc.yaml; each stage notes in ran.txt that it ran."""


class PrefectServer(NamedTuple):
    url: str
    database: Path


def dvc(*words: str) -> str:
    """What `dvc` prints."""
    return subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False).stdout


def wait_for(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited for {seconds} s"
        time.sleep(0.1)


def processes_in(folder: Path) -> list[str]:
    """The command lines of what runs with a working directory in `folder`, except for the tests themselves."""
    others = (process.info for process in psutil.process_iter(["pid", "cwd", "cmdline"]) if process.pid != os.getpid())
    return [" ".join(info["cmdline"]) for info in others if info["cwd"] and Path(info["cwd"]).is_relative_to(folder)]
