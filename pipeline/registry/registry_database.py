"""Read the registered versions from a tracking database on this machine, without MLflow.

Importing MLflow takes most of the time of `lectern models`, and a third of that of `lectern title`. MLflow's tables are
not a public API: `read_versions` leaves a database with other tables than those it was checked against to MLflow.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.experiments import sqlite_file

CHECKED_AGAINST = "dc11669786a5"
"""The revision of the tables, by MLflow 3.17. tests/registry/test_registry_database.py says when MLflow has another."""

CHAMPION = "champion"
"""The alias of the version that was promoted."""
CHALLENGER = "challenger"
"""The alias of the newest version."""

_BUSY_SECONDS = 30


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered version; its first fields have the names of MLflow's `ModelVersion`.

    aliases: its aliases.
    files: the folder of its files; None if they are on another machine.
    """

    name: str
    version: int
    creation_timestamp: int
    tags: dict[str, str]
    aliases: list[str]
    files: Path | None


def read_versions(name: str) -> list[RegisteredVersion] | None:
    """Return every version of a registered model, newest first; None if only MLflow can tell.

    Without a database nothing is registered yet.
    """
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    database = sqlite_file(tracking)
    if database is None or os.environ.get("MLFLOW_REGISTRY_URI", tracking) != tracking:
        return None
    if not database.exists():
        return []
    address = f"{database.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)) as connection:
            return _versions(connection, name)
    except sqlite3.Error:  # MLflow explains what is wrong with the file
        return None


def _versions(connection: sqlite3.Connection, name: str) -> list[RegisteredVersion] | None:
    if connection.execute("SELECT version_num FROM alembic_version").fetchall() != [(CHECKED_AGAINST,)]:
        return None
    tags: dict[int, dict[str, str]] = {}
    for version, key, value in connection.execute(
        "SELECT version, key, value FROM model_version_tags WHERE name = ?", (name,)
    ):
        tags.setdefault(version, {})[key] = value
    aliases: dict[int, list[str]] = {}
    for version, alias in connection.execute(
        "SELECT version, alias FROM registered_model_aliases WHERE name = ?", (name,)
    ):
        aliases.setdefault(version, []).append(alias)
    rows = connection.execute(
        "SELECT version, creation_time, storage_location FROM model_versions "
        "WHERE name = ? AND current_stage != 'Deleted_Internal' ORDER BY version DESC",
        (name,),
    )
    return [
        RegisteredVersion(name, version, created, tags.get(version, {}), aliases.get(version, []), _folder(location))
        for version, created, location in rows
    ]


def _folder(location: str | None) -> Path | None:
    if not location or not location.startswith("file:"):
        return None
    folder = Path(url2pathname(urlsplit(location).path))
    return folder if folder.is_dir() else None
