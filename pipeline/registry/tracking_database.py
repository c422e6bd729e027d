"""The tracking database of a project that has none yet."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from sqlalchemy.engine import make_url

from pipeline.files import file_aside


def create_database(tracking: str) -> None:
    """Where `tracking` names an SQLite file that is not there yet, makes it, with all its tables or not at all.

    MLflow makes the tables over seconds in the file itself, and a process that is killed meanwhile leaves a database
    which it can neither go on with nor open.
    """
    if not tracking.startswith("sqlite:"):
        return
    database = make_url(tracking).database
    if not database or Path(database).exists():
        return
    with file_aside(Path(database).absolute(), private=True) as aside:
        MlflowClient(f"sqlite:///{aside}").search_experiments()
