"""Name a flow run after the commit and the workbook that it uses."""

from __future__ import annotations

from pathlib import Path

from prefect import runtime

from pipeline.errors import UsageError
from pipeline.registry.lineage import git
from pipeline.settings import read_params


def commit_and_workbook() -> str:
    """Return a name such as `6dfeea1 lessons.xlsx`."""
    return f"{git('rev-parse', '--short', 'HEAD') or 'no commit'} {_workbook()}"


def _workbook() -> str:
    workbook = runtime.flow_run.parameters.get("workbook")
    try:
        return Path(workbook or read_params()["ingest"]["workbook"]).name
    except (UsageError, KeyError):
        return "no workbook"
