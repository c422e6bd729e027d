"""Write the whole project into one file while no stage runs."""

from __future__ import annotations

import os
from pathlib import Path

from flows.graph.exclusive_access import exclusive_access
from flows.services.prefect_server import configured_url, database_is_elsewhere
from pipeline.maintenance.backup import back_up


def backup(file: Path) -> None:
    """Write the project into `file`, a tar, while no stage runs, and print what it does not hold.

    Raises:
        Rejected: the file cannot be written.
        UsageError: the file is in the project.
        TemporaryFailure: a stage is running.
    """
    with exclusive_access() as project:
        left_out = back_up(file)
        cache = project.external_cache()
    print(f"{file}: {file.stat().st_size:,} bytes. `lectern restore` makes a project of it, here or elsewhere.")
    for missing in filter(None, (cache and f"DVC's cache {cache}", *_on_servers())):
        print(f"Not included: {missing}. Back that up too.")
    if left_out:
        print(f"Not included: {len(left_out):,} links that lead out of the project, such as {left_out[0]}.")


def _on_servers() -> list[str]:
    found = []
    if not os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite:"):
        found.append("what the tracking server keeps that MLFLOW_TRACKING_URI names")
    if configured_url() or database_is_elsewhere():
        found.append("the history that the Prefect server keeps")
    return found
