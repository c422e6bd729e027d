"""What a person must know of a version to say yes or no, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow.entities.model_registry import ModelVersion

from flows.reporting.artifacts import mlflow_address
from pipeline.evaluation.score_names import SCORES
from pipeline.registry.gate import Verdict


def facts(name: str, version: ModelVersion, champion: ModelVersion | None, verdict: Verdict) -> str:
    """Where `version` comes from, what each rule finds, and its scores beside those of the champion."""
    return "\n".join(_lines(name, version, champion, verdict))


def _lines(name: str, version: ModelVersion, champion: ModelVersion | None, verdict: Verdict) -> Iterator[str]:
    yield f"Version **{version.version}** of '{name}' is {_origin(version)}."
    yield f"The champion: {f'version {champion.version}, {_origin(champion)}' if champion else 'none yet'}."
    yield from ("", "On today's test split:", "", verdict.as_markdown())
    yield from ("", "Scores on the test split, as they were when each was registered:", "")
    compared = [version, *([champion] if champion else [])]
    yield _row("", f"version {version.version}", *([f"champion, version {champion.version}"] if champion else []))
    yield _row("---", *("--:" for _ in compared))
    for score in SCORES:
        yield _row(score, *(one.tags.get(f"test.{score}", "-") for one in compared))
    if (mlflow := mlflow_address()).startswith("http"):
        yield from ("", f"[Version {version.version} in MLflow]({mlflow}/#/models/{name}/versions/{version.version})")


def _origin(version: ModelVersion) -> str:
    tags = version.tags
    commit, workbook = tags.get("git.commit", "unknown")[:8], tags.get("data.workbook", "unknown")
    return f"`{tags.get('model', 'unknown')}`, from commit {commit} and workbook {workbook}"


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
