"""Writes the whole project into one file, while no stage runs. `python -m flows.maintenance.backup /elsewhere/lectern.tar`"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from flows.graph.exclusive_access import nothing_under_way
from flows.services.prefect_server import configured_url, database_is_elsewhere
from pipeline.errors import Misused, Refused, Unavailable
from pipeline.maintenance.backup import back_up
from pipeline.terminal import say_no


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done; 1: it cannot be written; 2: used wrongly; 75: something is under way."""
    parser = argparse.ArgumentParser(prog="python -m flows.maintenance.backup", description=__doc__)
    parser.add_argument("file", type=Path, help="where to write it: a tar")
    file = parser.parse_args(arguments).file.resolve()
    try:
        with nothing_under_way() as repo:
            left_out = back_up(file)
            cache = Path(repo.cache.local.path)
            is_elsewhere = not cache.is_relative_to(repo.root_dir)
    except (Refused, Misused, Unavailable) as error:
        return say_no(error)
    print(f"{file}: {file.stat().st_size:,} bytes. `lectern restore` makes a project of it, here or elsewhere.")
    for what in filter(None, (is_elsewhere and f"DVC's cache {cache}", *_on_servers())):
        print(f"Not in it: {what}. Back that up too.")
    if left_out:
        print(f"Not in it: {len(left_out):,} links that lead out of the project, such as {left_out[0]}.")
    return 0


def _on_servers() -> list[str]:
    found = []
    if not os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite:"):
        found.append("what the tracking server keeps that MLFLOW_TRACKING_URI names")
    if configured_url() or database_is_elsewhere():
        found.append("the history that the Prefect server keeps")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
