"""The tracking database of a project, and the place of its artifacts."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow import MlflowClient

from pipeline.errors import UsageError
from pipeline.experiments import main_project, sqlite_file
from pipeline.files import file_aside, sync


def create_database(tracking: str) -> None:
    """Create the SQLite file that `tracking` names, with all of MLflow's tables, if the file is missing.

    MLflow creates the tables over several seconds. A process that is killed meanwhile would leave a database that
    MLflow cannot open, so the file gets its name once it is complete.
    """
    database = sqlite_file(tracking)
    if database is None or database.exists():
        return
    with file_aside(database.absolute(), private=True) as aside:
        MlflowClient(f"sqlite:///{aside}").search_experiments()


def artifact_root(tracking: str) -> str | None:
    """Return the artifact location for a new experiment; None if the server at `tracking` chooses it.

    Raises:
        UsageError: the database may be shared with other machines, which cannot read this machine's disk.
    """
    if tracking.startswith(("http://", "https://")):
        return None
    if root := os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        return root
    if sqlite_file(tracking) is None:
        raise UsageError(
            "MLFLOW_TRACKING_URI names a database that several machines may share. Name a place for artifacts that all "
            "of them can reach: export MLFLOW_DEFAULT_ARTIFACT_ROOT=s3://BUCKET/PATH. It cannot be changed later."
        )
    return (main_project() / "mlartifacts").resolve().as_uri()


def sync_artifacts(address: str) -> None:
    """Wait until the artifacts at `address` are on the disk, if they lie on this machine."""
    if address.startswith("file:"):
        sync(Path(url2pathname(urlsplit(address).path)))
    elif "://" not in address and Path(address).exists():
        sync(Path(address))
