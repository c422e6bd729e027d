"""Artifacts of a training run in Prefect's pages: the leaderboard, the quality of the data, and links."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.evaluation.comparison import format_interval
from pipeline.evaluation.intervals import Interval
from pipeline.paths import DATA_DOCS, LEADERBOARD, LEADERBOARD_MD, REPORT, REPORTS, STATE, TRAINING, VALIDATION
from pipeline.redaction import hide_passwords, without_user

MLFLOW_URL_FILE = STATE / "mlflow.url"
"""File in which `lectern up` keeps the address of its MLflow server."""

REPORTS_URL_FILE = STATE / "reports.url"
"""File in which `lectern up` keeps the address of its server of `reports/`."""

_BEFORE_VALIDATION = {"sample", "ingest"}


def publish(*, failed: Collection[str], with_runs: bool, reports: Path = REPORTS) -> None:
    """Publish the leaderboard and the quality of the data, where they are current, and the links.

    Args:
        failed: the stages that failed.
        with_runs: link the MLflow runs of the trainings too, which takes seconds.
        reports: the folder of the run's reports.
    """
    leaderboard, validation_report = _in(reports, LEADERBOARD), _in(reports, VALIDATION)
    if leaderboard.exists() and not failed:
        rows = json.loads(leaderboard.read_text(encoding="utf-8"))["rows"]
        create_table_artifact(key="leaderboard", table=as_table(rows))
    if validation_report.exists() and _BEFORE_VALIDATION.isdisjoint(failed):
        validation = json.loads(validation_report.read_text(encoding="utf-8"))
        create_markdown_artifact(key="data-quality", markdown=data_quality(validation, reports))
    create_markdown_artifact(key="where-to-read-on", markdown=links(reports, with_runs=with_runs))


def _in(reports: Path, path: Path) -> Path:
    """Return the place in the folder `reports` of `path`, which is in the project's own `reports/`."""
    return reports / path.relative_to(REPORTS)


def as_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Flatten `rows` so that all have the same columns: a nested value gets a column such as `test rouge1`.

    An interval becomes one text.
    """
    flat = [dict(_cells(row)) for row in rows]
    columns = dict.fromkeys(column for row in flat for column in row)
    return [{column: row.get(column) for column in columns} for row in flat]


def _cells(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        match value:
            case {"mean": mean, "low": low, "high": high}:
                yield prefix + name, format_interval(Interval(mean, low, high))
            case dict():
                yield from _cells(value, f"{prefix}{name} ")
            case float():
                yield prefix + name, round(value, 4)
            case None:
                continue
            case _:
                yield prefix + name, value


def data_quality(validation: dict[str, Any], reports: Path = REPORTS) -> str:
    """Describe the validation in Markdown: the verdict, a row per failed expectation, and a link to the data docs."""
    tables = validation["tables"]
    expectations = sum(len(table["outcomes"]) for table in tables)
    failed = [(table, outcome) for table in tables for outcome in table["outcomes"] if not outcome["success"]]
    verdict = "The data is valid." if validation["success"] else "**The data is not valid**, so no model is trained."
    counted = ", ".join(f"{table['rows']:,} {table['table']}" for table in tables)
    lines = [f"{verdict} {expectations - len(failed)} of {expectations} expectations pass on {counted}.", ""]
    if failed:
        lines += ["| table | severity | expected | found |", "|---|---|---|---|"]
        lines += [f"| {table['table']} | {_failure(outcome)} |" for table, outcome in failed]
    return "\n".join([*lines, "", f"All expectations: {_page(_in(reports, DATA_DOCS) / 'index.html', 'data docs')}"])


def _failure(outcome: dict[str, Any]) -> str:
    rows = [str(unexpected["row"]) for unexpected in outcome["unexpected"] if unexpected["row"] is not None]
    where = f" (rows {', '.join(rows)})" if rows else ""
    cells = (outcome["severity"], outcome["expected"], f"{outcome['found']}{where}")
    return " | ".join(cell.replace("|", "\\|") for cell in cells)


def links(reports: Path = REPORTS, *, with_runs: bool) -> str:
    """List links in Markdown: MLflow, its runs of the trainings, and the reports that exist."""
    lines = [f"- MLflow: {mlflow_address()}"]
    lines += [f"  - {name}" for name in (_runs(reports) if with_runs else ())]
    pages = {REPORT: "report", LEADERBOARD_MD: "leaderboard", DATA_DOCS / "index.html": "data docs"}
    found = {_in(reports, path): title for path, title in pages.items()}
    lines += [f"- {_page(path, title)}" for path, title in found.items() if path.exists()]
    return "\n".join(lines)


def _page(path: Path, title: str) -> str:
    """Link to the page if `lectern up` serves the reports; else name its file."""
    if REPORTS_URL_FILE.exists():
        base = REPORTS_URL_FILE.read_text(encoding="utf-8").strip()
        return f"[{title}]({base}/{path.relative_to(REPORTS).as_posix()})"
    return f"{title}: `{path.resolve()}`"


def _runs(reports: Path) -> Iterator[str]:
    """Name the MLflow run of each training, as a link if MLflow has pages."""
    paths = sorted(_in(reports, TRAINING).glob("*/run.json"))
    if not paths:
        return
    # Imported late, as it takes seconds.
    from mlflow.exceptions import MlflowException

    from pipeline.registry.tracking import connect, find_run

    try:
        client, address = connect(), mlflow_address()
        ids = {path.parent.name: json.loads(path.read_text(encoding="utf-8"))["run_id"] for path in paths}
        found = {model: find_run(client, run_id) for model, run_id in ids.items()}
    except (UsageError, Rejected, TemporaryFailure, MlflowException) as error:
        # The run succeeded, or one of its stages reported the same problem.
        get_run_logger().warning("The artifact links no MLflow runs: %s", hide_passwords(str(error)))
        return
    for model, run in found.items():
        if run and address.startswith("http"):
            yield f"[{model}]({address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})"
        elif run:
            yield f"{model}: run `{run.info.run_id}`"


def mlflow_address() -> str:
    """Return the address of MLflow's pages, or how to open them."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking.startswith("http"):
        return without_user(tracking)
    if MLFLOW_URL_FILE.exists():
        return MLFLOW_URL_FILE.read_text(encoding="utf-8").strip()
    return "run `lectern up` to open its pages"
