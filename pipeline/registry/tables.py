"""The registry as a terminal shows it."""

from __future__ import annotations

from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion
from rich.table import Table
from rich.text import Text

from pipeline.registry.versions import Move

_SCORES = ("validation.rouge1", "test.rouge1")


def versions_table(name: str, versions: list[tuple[ModelVersion, list[str]]]) -> Table:
    """A row a version: number, aliases, model, scores, commit, when."""
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


def history_table(name: str, moves: list[Move]) -> Table:
    """A row a move of the champion, the oldest first."""
    table = Table(title=f"Champions of '{name}'", title_justify="left")
    for column in ("when (UTC)", "what", "from", "to", "who", "because", "evidence"):
        table.add_column(column)
    for move in moves:
        what = f"{move.action}, forced" if move.forced else move.action
        cells = (move.when, what, move.before or "-", move.version, move.who, move.because, move.evidence or "-")
        table.add_row(*map(Text, cells))
    return table
