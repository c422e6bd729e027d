"""Write the whole project into one file while no stage runs."""

from __future__ import annotations

import os
from pathlib import Path

from flows.graph.exclusive_access import exclusive_access
from flows.services.prefect_server import configured_url, has_external_database
from pipeline.experiments import sqlite_file
from pipeline.maintenance.backup import back_up


def backup(file: Path) -> None:
    """Write the project into the tar archive `file` while no stage runs, and print what the archive lacks.

    Raises:
        Rejected: the file cannot be written.
        UsageError: the file is in the project.
        TemporaryFailure: a stage is running.
    """
    with exclusive_access() as project:
        left_out = back_up(file)
        cache = project.external_cache()
    print(f"{file}: {file.stat().st_size:,} bytes. `lectern restore` turns it into a project, here or elsewhere.")
    for missing in filter(None, (cache and f"DVC's cache {cache}", *_data_on_servers())):
        print(f"Not included: {missing}. Back it up separately.")
    if left_out:
        print(f"Not included: {len(left_out):,} links to files outside the project, such as {left_out[0]}.")


def _data_on_servers() -> list[str]:
    found = []
    if sqlite_file(os.environ["MLFLOW_TRACKING_URI"]) is None:
        found.append("the data of the tracking server in MLFLOW_TRACKING_URI")
    if configured_url() or has_external_database():
        found.append("the history on the Prefect server")
    return found
