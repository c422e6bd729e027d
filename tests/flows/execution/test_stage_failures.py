"""What the failure of a stage means: another attempt, or a message for the user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.execution.stage import StageBroke, StageRejected, failure
from flows.graph.plan import Stage
from pipeline.command import STAGE_REPORT, StageReport
from tests.command import run_module

INGEST = Stage("ingest", upstream=(), inputs=("lessons.xlsx",), slot=None, stale=True, restorable=True)


def failed(tmp_path: Path, report: StageReport | None, *output: str) -> StageRejected | StageBroke:
    """The error of a stage whose input exists."""
    (tmp_path / "lessons.xlsx").touch()
    return failure(INGEST, output, report, tmp_path)


@pytest.mark.parametrize(("code", "heading"), [(1, "ingest was refused:"), (2, "ingest has wrong settings:")])
def test_a_rejection_is_final_and_quoted_completely(tmp_path: Path, code: int, heading: str):
    lines = [f"lesson_topics, row {row}: no title. Write one." for row in range(2, 202)]
    error = failed(tmp_path, StageReport(code, "\n".join(lines)), "a line of the log")
    assert isinstance(error, StageRejected)
    assert str(error).splitlines() == [heading, *(f"  {line}" for line in lines)]


@pytest.mark.parametrize("code", [70, 75])
def test_another_failure_may_pass_and_the_last_lines_are_quoted(tmp_path: Path, code: int):
    error = failed(tmp_path, StageReport(code, "\n".join(f"line {number}" for number in range(100))))
    assert isinstance(error, StageBroke)
    heading, *lines = str(error).splitlines()
    assert heading == f"ingest broke with exit code {code}:"
    assert (lines[0], lines[-1], len(lines)) == ("  line 85", "  line 99", 15)


def test_a_stage_that_was_killed_may_pass(tmp_path: Path):
    error = failed(tmp_path, None, "12 examples", "ERROR: failed to reproduce 'ingest': exited with -9")
    assert isinstance(error, StageBroke)
    assert "exited with -9" in str(error)


def test_a_missing_input_is_final_and_named(tmp_path: Path):
    error = failure(INGEST, ["ERROR: failed to reproduce"], None, tmp_path)
    assert isinstance(error, StageRejected)
    assert str(error) == "ingest lacks an input:\n  lessons.xlsx"


def test_of_a_rejection_that_is_too_long_the_end_is_quoted(tmp_path: Path):
    lines = [f"line {number:04}" + " word" * 20 for number in range(9000)]
    heading, left_out, *kept = str(failed(tmp_path, StageReport(1, "\n".join(lines)))).split("\n")
    assert heading == "ingest was refused:"
    assert kept == [f"  {line}" for line in lines[-len(kept) :]]
    assert left_out == f"  … {9000 - len(kept):,} more lines before these, in the log"
    assert 40_000 < len("\n".join(kept)) < 100_000  # Prefect cuts the message of a run there


def test_a_stage_reports_its_exit_code_and_its_message(project: Path, tmp_path: Path):
    (project / "params.yaml").write_text("ingest: {workbok: lessons.xlsx}", encoding="utf-8")
    path = tmp_path / "report.json"
    done = run_module("pipeline", "ingest", cwd=project, env={**os.environ, STAGE_REPORT: str(path)})
    report = StageReport.read(path)
    assert report
    assert report.exit_code == done.returncode == 2
    assert "ingest.workbok" in report.message
    assert report.message in done.stderr
