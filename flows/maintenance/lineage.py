"""Trace a version back to its workbook, also through DVC's cache and remote."""

from __future__ import annotations

from pathlib import Path

from flows.graph.cache import storage_finder
from pipeline.registry.lineage_walk import Step, walk
from pipeline.registry.register_settings import RegisterSettings
from pipeline.registry.tracking import connect
from pipeline.registry.versions import get_version


def trace(number: int | None) -> tuple[str, list[Step]]:
    """Return the version's number, and its lineage as one step for each thing that it was made from.

    Args:
        number: the version; None means the champion, else the challenger.

    Raises:
        Rejected: the version does not exist.
        TemporaryFailure: a server or DVC's remote does not answer.
    """
    client = connect()
    version = get_version(client, RegisterSettings.read().name, number)
    with storage_finder(Path.cwd()) as kept:
        return str(version.version), list(walk(client, version, kept))
