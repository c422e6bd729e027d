"""Where MLflow keeps the artifacts of the project's runs and models."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.errors import UsageError
from pipeline.experiments import main_project
from pipeline.files import sync


def sync_artifacts(address: str) -> None:
    """Wait until what MLflow keeps at `address` is on the disk, where that is this machine's."""
    if address.startswith("file:"):
        sync(Path(url2pathname(urlsplit(address).path)))
    elif "://" not in address and Path(address).exists():
        sync(Path(address))


def artifact_root(tracking: str) -> str | None:
    """The place for a new experiment; None where the server at the address `tracking` decides.

    Raises:
        UsageError: others may share that database, and this machine's disk is not theirs.
    """
    if tracking.startswith(("http://", "https://")):
        return None
    if root := os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        return root
    if not tracking.startswith("sqlite:"):
        raise UsageError(
            "MLFLOW_TRACKING_URI names a database that others may share. Say where all of them find artifacts: "
            "export MLFLOW_DEFAULT_ARTIFACT_ROOT=s3://BUCKET/PATH. An experiment keeps its place for good."
        )
    return (main_project() / "mlartifacts").resolve().as_uri()
