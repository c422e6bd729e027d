"""Measure what it costs to write files so that they survive a power loss.

    python benchmarks/durable.py [--folder .]

The figures are those of the disk that `--folder` is on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from machine import describe_machine

from pipeline.files import folder_aside, write_text

MODEL_BYTES = 60_000_000
FILES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="a folder on the disk to measure")
    options = parser.parse_args()
    print(f"{describe_machine([])}\n")
    print("| written | made again: not synced | durable |\n|---|--:|--:|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for what, write, times in (
            ("a file of state, 1 kB", _state, 100),
            (f"a model folder, {MODEL_BYTES // 1_000_000} MB in 8 files", _model, 5),
            (f"a folder of {FILES} files of 10 kB", _many, 3),
        ):
            fast, durable = (_milliseconds(write, Path(folder), times, durable=each) for each in (False, True))
            print(f"| {what} | {fast:,.1f} ms | {durable:,.1f} ms |")


def _milliseconds(write: Callable[..., None], folder: Path, times: int, *, durable: bool) -> float:
    taken = []
    for _ in range(times):
        os.sync()  # or what the run before has left is waited for too
        began = time.perf_counter()
        write(folder, durable=durable)
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


def _state(folder: Path, *, durable: bool) -> None:
    write_text(folder / "state.json", "x" * 1000, durable=durable)


def _model(folder: Path, *, durable: bool) -> None:
    _fill(folder / "model", 8, MODEL_BYTES // 8, durable=durable)


def _many(folder: Path, *, durable: bool) -> None:
    _fill(folder / "many", FILES, 10_000, durable=durable)


def _fill(folder: Path, files: int, size: int, *, durable: bool) -> None:
    with folder_aside(folder, durable=durable) as aside:
        for number in range(files):
            (aside / str(number)).write_bytes(os.urandom(size))


if __name__ == "__main__":
    main()
