"""A project with a running `lectern serve`, and a transcript to give it."""

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
from tests.chapters.test_segmentation import transcript_about
from tests.conftest import ROOT

PATIENCE = 300
"""Seconds that a test waits for a server."""

THREE_SUBJECTS = transcript_about("bread", "stars", "goals")
AS_TEXT = "\n".join(
    f"{int(line.seconds) // 60}:{int(line.seconds) % 60:02} {line.text}" for line in THREE_SUBJECTS.lines
)

BROWSER_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def make_project(folder: Path, tracking: Path) -> None:
    """Copy the shipped settings and an empty tracking database into `folder`, with small limits for the server."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(tracking, folder)
    set_params(["serve"], {"refresh": 0.2, "megabytes": 0.2, "seconds": 600, "texts": 4}, folder / "params.yaml")
    set_params(["register"], {"pretrained": None}, folder / "params.yaml")  # so that no version is served at first
    set_params(["page"], {"words": 5000, "chapters": 20}, folder / "params.yaml")


def write_captions(path: Path) -> Path:
    """Write the transcript about three subjects as WebVTT."""
    cues = [f"{_time(line.seconds)} --> {_time(line.seconds + 6)}\n{line.text}\n" for line in THREE_SUBJECTS.lines]
    path.write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8")
    return path


def _time(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{int(seconds) % 60:02}.000"


@contextmanager
def running_server(folder: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run `lectern serve` in `folder`. Yields its port and process."""
    port = free_port()
    words = ["-m", "lectern", "serve", "--port", str(port), *options]
    process = subprocess.Popen([sys.executable, *words], cwd=folder)
    try:
        yield port, process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def health(port: int) -> dict[str, Any]:
    """Return the answer of /health; empty while the server does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())
    except OSError:
        return {}


def wait_for_health(port: int, **wanted: object) -> None:
    """Return once /health has the wanted values."""
    wait_for(lambda: wanted.items() <= health(port).items())


def wait_for(happened: Callable[[], object]) -> None:
    """Return once `happened` returns something true."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
