"""The flow `titles`: every new transcript in the inbox gets its title. `lectern title FOLDER` does it, as a child.

After each batch it looks whether what comes in, and what goes out, still is like what the model was trained on.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from mlflow.exceptions import MlflowException
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import Cancelled, Completed, Failed, State
from pydantic import Field

from flows.execution import slots
from flows.execution.run_processes import Crew
from flows.execution.stage import StageBroke, StageRejected, last_lines, refusal, run_logged, stage_task
from flows.reporting.events import emit_drift
from flows.reporting.notifications import notify_failure
from flows.reporting.run_names import commit_and_workbook
from flows.services.prefect_server import warn_if_not_stored
from flows.train import RunCancelled, reason, wait_for_all, wait_until_recorded
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.monitoring.batch_log import MEASURES, read_batches
from pipeline.redaction import hide_passwords
from pipeline.titles.folder import IGNORED, REFUSED, TABLE, Row, ignored_files, read_refused, read_rows

_NAME = r"[^/.~\x00-\x1f][^/\x00-\x1f]*"
Folder = Annotated[str, Field(pattern=f"^{_NAME}(/{_NAME})*/?$", max_length=200)]
"""A path downward from the project's folder. Prefect's form refuses what begins with / or ~ or holds a `..`."""

INBOX = "inbox"
OUTBOX = "titles"

TITLE_FOLDER = "title folder"

SHOWN = 20
"""Files that a run's message names of one kind."""

KILLED = 128  # and the signal's number


@flow(
    name="titles",
    flow_run_name=commit_and_workbook,
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def titles(inbox: Folder = INBOX, outbox: Folder = OUTBOX, again: bool = False) -> State:
    """Titles what is new in `inbox`; both folders lie in the project's.

    A file that cannot be titled fails the run once; until it is mended, later runs name it.

    Args:
        inbox: The folder whose .txt files and workbooks are titled.
        outbox: The folder for titles.csv and the filled workbooks.
        again: Title anew what an earlier version has titled.
    """
    try:
        source, target = in_project(inbox, "inbox"), in_project(outbox, "outbox")
        crew = Crew()
    except UsageError as error:
        return Failed(message=str(error))
    if inbox == INBOX:
        source.mkdir(exist_ok=True)  # so that a schedule has a folder to look into before anybody uses it
    before, began = read_rows(target / TABLE), datetime.now(UTC)
    crew.declare_slots()
    try:
        future = title_folder.submit(source, target, again, crew)
        wait_for_all([future])
    except RunCancelled:
        return Cancelled(message="Cancelled; what was titled is kept.")
    finally:
        crew.stop()
    wait_until_recorded({TITLE_FOLDER})
    new = read_rows(target / TABLE)[len(before) :]
    with warn_if_not_stored("what the run's page shows of its titles"):
        publish(new)
        look_for_drift(began)
    end = future.wrapped_future.result()
    if end.is_failed() or end.is_crashed():
        return Failed(message=reason(end))
    return Completed(
        message="\n".join([f"{len(new)} files titled." if new else "Nothing was new.", *left(source, target)])
    )


def left(inbox: Path, outbox: Path) -> list[str]:
    """What lies in the inbox without a title, in a line each; of much of it the first, since a message has an end."""
    said = [f"Waits to be mended: {each.file}: {in_a_line(each.why, outbox)}" for each in read_refused(outbox)]
    ignored = ignored_files(inbox, outbox)
    return [*first(said), *([f"{len(ignored)} {IGNORED}: {', '.join(first(ignored))}"] if ignored else [])]


def in_a_line(why: str, outbox: Path) -> str:
    line, _, more = why.partition("\n")
    return f"{line} ({outbox.name}/{REFUSED} has all of it)" if more else line


def first(names: list[str]) -> list[str]:
    return names if len(names) <= SHOWN else [*names[:SHOWN], f"{len(names) - SHOWN} more"]


def in_project(folder: str, parameter: str) -> Path:
    """`folder` as an absolute path.

    Raises:
        UsageError: a link in it leads out of the project's folder, or back to it.
    """
    project = Path.cwd().resolve()
    found = (project / folder).resolve()
    if project not in found.parents:
        raise UsageError(f"{parameter} is '{folder}', which is no folder inside of {project}. Name one that is.")
    return found


@stage_task(name=TITLE_FOLDER, task_run_name=TITLE_FOLDER)
def title_folder(inbox: Path, outbox: Path, again: bool, crew: Crew) -> None:
    """Runs the command.

    Raises:
        StageRejected, StageBroke: it failed; the message ends with what it printed, of one that broke the last lines.
        Stopped: the flow run is over.
    """
    command = [sys.executable, "-m", "lectern", "title", str(inbox), "--out", str(outbox), "--tell-once"]
    # A processor has room beside a training; an accelerator's memory has not.
    slot = slots.GPU if any(slots.devices()) else None
    code, output = run_logged([*command, *(["--again"] if again else [])], crew, slot=slot)
    if code:
        heading = f"Titling ended with exit code {code}:"
        if code == TemporaryFailure.exit_code or code > KILLED:
            raise StageBroke(f"{heading}\n{last_lines(output)}")
        raise StageRejected(f"{heading}\n{refusal(output)}")


def publish(rows: list[Row]) -> None:
    """Shows in Prefect's pages what was titled, if anything was."""
    if rows:
        table = [{name: cell for name, cell in asdict(row).items() if name != "sha256"} for row in rows]
        create_table_artifact(key="titles", table=table, description="What this run has titled.")


def look_for_drift(began: datetime) -> None:
    """Shows the numbers of what was titled since `began`, if anything was, and tells Prefect of drift.

    Titles that are written are no worse for what this finds, or cannot find: it fails no run.
    """
    try:
        batch = read_batches(began)
    except (OSError, ValueError) as error:
        get_run_logger().warning("Drift was not looked for. %s", error)
        return
    if batch.empty:
        return
    from pipeline.monitoring.drift import (  # seconds, which a run without a new file need not wait
        DriftSettings,
        in_short,
    )
    from pipeline.monitoring.drift_report import report_drift

    numbers = "\n".join(f"| {measure.replace('_', ' ')} | {in_short(batch, measure)} |" for measure in MEASURES)
    shown = f"This batch: {len(batch)} texts.\n\n| | |\n|---|---|\n{numbers}"
    try:
        drift = report_drift(DriftSettings.read())
    except (UsageError, Rejected, TemporaryFailure, MlflowException, OSError, ValueError) as error:
        said = hide_passwords(str(error))
        get_run_logger().warning("Drift was not looked for. %s", said)
        create_markdown_artifact(key="drift", markdown=f"{shown}\n\nNot compared: {said}")
        return
    create_markdown_artifact(key="drift", markdown=f"{shown}\n\n{drift.as_markdown()}")
    get_run_logger().info(drift.headline)
    if drift.drifted:
        emit_drift(drift.version.rpartition("/")[0], drift)
