"""A project with a registered version and a server of its own, and a talk to give it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.services.service import free_port
from pipeline.settings import set_params
from tests.chapters.test_segmentation import talk_about
from tests.conftest import ROOT

PATIENCE = 300
THREE = talk_about("bread", "stars", "goals")


def make_project(folder: Path, tracking: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(tracking, folder)
    set_params(["serve"], {"refresh": 0.2, "megabytes": 0.2, "seconds": 600}, folder / "params.yaml")
    set_params(["page"], {"words": 5000, "chapters": 20}, folder / "params.yaml")


def write_talk(path: Path) -> Path:
    """A talk of three subjects, as captions."""
    cues = [f"{_time(seconds)} --> {_time(seconds + 6)}\n{text}\n" for seconds, text in THREE.lines]
    path.write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8")
    return path


def _time(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{int(seconds) % 60:02}.000"


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, subprocess.Popen]]:
    """The port at which it answers."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "lectern", "serve", "--port", str(port)], cwd=folder)
    try:
        yield port, process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def health(port: int) -> dict[str, Any]:
    """What /health says; nothing while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())
    except OSError:
        return {}


def until(port: int, **wanted: object) -> None:
    """Returns once /health has what is wanted."""
    wait_for(lambda: wanted.items() <= health(port).items())


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)
