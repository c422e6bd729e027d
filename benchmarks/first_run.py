"""Measure how long `lectern run` takes on a fresh clone and when nothing has changed, and print the leaderboard.

    python benchmarks/first_run.py [WORKBOOK]

It measures in the active environment; the time to install is not included. WORKBOOK is an .xlsx file to use instead of
the embedded workbook.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx file to use instead of the embedded workbook")
    workbook = parser.parse_args().workbook
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "lectern"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        if workbook:
            seconds("lectern", "use", str(workbook.resolve()), cwd=clone)
        print("| `lectern run` | seconds |\n|---|--:|")
        for what in ("first run", "nothing changed"):
            print(f"| {what} | {seconds('lectern', 'run', cwd=clone):.0f} |", flush=True)
        print(f"\n{(clone / 'reports/leaderboard.md').read_text(encoding='utf-8')}")


def seconds(*words: str, cwd: Path, env: Mapping[str, str] | None = None) -> float:
    """Return the seconds that `python -m` with `words` takes in `cwd`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env={**os.environ, "PATH": path, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return time.monotonic() - start


if __name__ == "__main__":
    main()
