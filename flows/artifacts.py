"""What a person sees of a flow run in Prefect's pages: the leaderboard, and where to read on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipeline.paths import LEADERBOARD, LEADERBOARD_MD, REPORT, STATE

MLFLOW_URL_FILE = STATE / "mlflow.url"
"""Where `lectern up` says how its MLflow server is reached."""


def publish() -> None:
    """Publishes the leaderboard, if there is one, and the links."""
    if LEADERBOARD.exists():
        rows = json.loads(LEADERBOARD.read_text(encoding="utf-8"))["rows"]
        create_table_artifact(key="leaderboard", table=as_table(rows))
    create_markdown_artifact(key="where-to-read-on", markdown=links())


def as_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows`, each with the same flat columns: what is nested gets a column of its own, such as `test rouge1`."""
    flat = [dict(_cells(row)) for row in rows]
    columns = dict.fromkeys(column for row in flat for column in row)
    return [{column: row.get(column) for column in columns} for row in flat]


def _cells(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        match value:
            case dict():
                yield from _cells(value, f"{prefix}{name} ")
            case float():
                yield prefix + name, round(value, 4)
            case None:
                continue
            case _:
                yield prefix + name, value


def links() -> str:
    """A Markdown list of MLflow and of the reports that are there."""
    lines = [f"- MLflow: {mlflow_address()}"]
    lines += [f"- `{path.resolve()}`" for path in (REPORT, LEADERBOARD_MD) if path.exists()]
    return "\n".join(lines)


def mlflow_address() -> str:
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking.startswith("http"):
        return tracking
    if MLFLOW_URL_FILE.exists():
        return MLFLOW_URL_FILE.read_text(encoding="utf-8").strip()
    return "`lectern up` opens its pages"
