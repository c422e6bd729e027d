"""The list of registered versions that `lectern models` prints."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Table

from pipeline.registry.registry_database import RegisteredVersion

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_SCORES = ("validation.rouge1", "test.rouge1")


def versions_table(name: str, versions: Iterable[tuple[ModelVersion | RegisteredVersion, list[str]]]) -> Table:
    """Format versions with their aliases for a terminal."""
    table = Table(title=f"Versions of '{name}'", title_justify="left")
    for column in ("version", "alias", "model", *_SCORES, "beats baselines", "commit", "registered (UTC)"):
        table.add_column(column)
    for version, aliases in versions:
        tags = version.tags
        table.add_row(
            str(version.version),
            ", ".join(sorted(aliases)),
            tags.get("model", ""),
            *(tags.get(score, "") for score in _SCORES),
            tags.get("beats_baselines", ""),
            tags.get("git.commit", "")[:8] + ("+" if tags.get("git.dirty") == "true" else ""),
            datetime.fromtimestamp(version.creation_timestamp / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M"),
        )
    return table
