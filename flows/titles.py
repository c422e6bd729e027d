"""The flow `titles`: title every new file in the inbox, by `lectern title FOLDER` in a child process.

After each batch, the flow measures whether texts and titles have drifted from those of the training split.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, cast

from mlflow.exceptions import MlflowException
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows.execution.run_processes import RunProcesses
from flows.execution.stage import run_lectern, stage_task
from flows.reporting.events import emit_drift
from flows.reporting.notifications import notify_failure
from flows.reporting.run_names import commit_and_workbook
from flows.services.prefect_server import warn_if_not_stored
from flows.train import RunCancelled, final_state, reason, wait_for_all, wait_until_recorded
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.inbox.outbox import NOT_TITLED, TitledFile, read_rejected, read_titled
from pipeline.inbox.title_inbox import IGNORED, ignored_files
from pipeline.monitoring.batch_log import MEASURES, read_batches
from pipeline.redaction import hide_passwords

_NAME = r"[^/.~\x00-\x1f][^/\x00-\x1f]*"
Folder = Annotated[str, Field(pattern=f"^{_NAME}(/{_NAME})*/?$", max_length=200)]
"""A path inside the project. Prefect's form refuses a path that begins with / or ~ or holds `..`."""

INBOX = "inbox"
OUTBOX = "titles"

TITLE_FOLDER = "title folder"

SHOWN = 20
"""Most files of one kind that a run's message names."""


@flow(
    name="titles",
    flow_run_name=commit_and_workbook,
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def titles(inbox: Folder = INBOX, outbox: Folder = OUTBOX, again: bool = False) -> State:
    """Title the new files in `inbox`. Both folders are inside the project.

    A file that cannot be titled fails the run once. Until somebody corrects it, later runs only name it.

    Args:
        inbox: The folder with texts, transcripts and workbooks to title.
        outbox: The folder for titles.csv and the workbooks with titles and chapters.
        again: Also title the files again that another version has titled.
    """
    try:
        source, target = in_project(inbox, "inbox"), in_project(outbox, "outbox")
        processes = RunProcesses()
    except UsageError as error:
        return Failed(message=str(error))
    if inbox == INBOX:
        source.mkdir(exist_ok=True)  # the schedule starts before anybody has used the folder
    before, began = read_titled(target), datetime.now(UTC)
    processes.declare_slots()
    try:
        submitted = title_folder.submit(source, target, again, processes, return_state=False)
        future = cast("PrefectConcurrentFuture[None]", submitted)
        wait_for_all([future])
    except RunCancelled:
        return Cancelled(message="Cancelled; the finished titles are kept.")
    finally:
        processes.stop()
    wait_until_recorded({TITLE_FOLDER})
    new = read_titled(target)[len(before) :]
    with warn_if_not_stored("what the run's page shows of its titles"):
        publish(new)
        look_for_drift(began)
    state = final_state(future)
    if state.is_failed() or state.is_crashed():
        return Failed(message=reason(state))
    return Completed(
        message="\n".join([f"{len(new)} files titled." if new else "Nothing was new.", *untitled(source, target)])
    )


def untitled(inbox: Path, outbox: Path) -> list[str]:
    """Return a line for each file in the inbox without a title; only the first files if there are many."""
    refused = [f"To be corrected: {each.file}: {first_line(each.why, outbox)}" for each in read_rejected(outbox)]
    ignored = ignored_files(inbox, outbox)
    return [*first(refused), *([f"{len(ignored)} {IGNORED}: {', '.join(first(ignored))}"] if ignored else [])]


def first_line(why: str, outbox: Path) -> str:
    """Return the first line of a reason, and where the rest of it is."""
    line, _, more = why.partition("\n")
    return f"{line} ({outbox.name}/{NOT_TITLED} has all of it)" if more else line


def first(names: list[str]) -> list[str]:
    """Return the first of `names`, and the number of the others."""
    return names if len(names) <= SHOWN else [*names[:SHOWN], f"{len(names) - SHOWN} more"]


def in_project(folder: str, parameter: str) -> Path:
    """Return `folder` as an absolute path.

    Raises:
        UsageError: through a link, it is outside the project, or the project itself.
    """
    project = Path.cwd().resolve()
    found = (project / folder).resolve()
    if project not in found.parents:
        raise UsageError(f"{parameter} is '{folder}', which is not a folder inside {project}. Name one that is.")
    return found


@stage_task(name=TITLE_FOLDER, task_run_name=TITLE_FOLDER)
def title_folder(inbox: Path, outbox: Path, again: bool, processes: RunProcesses) -> None:
    """Run `lectern title` on the folder.

    Raises:
        StageRejected, StageBroke: the command failed; the message quotes its output.
        Stopped: the flow run has ended.
    """
    options = ["--out", str(outbox), "--tell-once", *(["--again"] if again else [])]
    run_lectern("title", str(inbox), *options, processes=processes)


def publish(rows: list[TitledFile]) -> None:
    """Show the new titles in Prefect's pages, if there are any."""
    if rows:
        table = [{name: cell for name, cell in asdict(row).items() if name != "sha256"} for row in rows]
        create_table_artifact(key="titles", table=table, description="The titles of this run.")


def look_for_drift(began: datetime) -> None:
    """Show the measures of the texts that were titled since `began`, if there are any, and tell Prefect of drift.

    A failure here fails no run: the titles are written.
    """
    try:
        batch = read_batches(began)
    except (OSError, ValueError) as error:
        get_run_logger().warning("Drift was not measured. %s", error)
        return
    if batch.empty:
        return
    from pipeline.monitoring.drift import (  # imported late: takes seconds, which a run without new files saves
        DriftSettings,
        summarise,
    )
    from pipeline.monitoring.drift_report import report_drift

    numbers = "\n".join(f"| {measure.replace('_', ' ')} | {summarise(batch, measure)} |" for measure in MEASURES)
    shown = f"This batch: {len(batch)} texts.\n\n| | |\n|---|---|\n{numbers}"
    try:
        drift = report_drift(DriftSettings.read())
    except (UsageError, Rejected, TemporaryFailure, MlflowException, OSError, ValueError) as error:
        why = hide_passwords(str(error))
        get_run_logger().warning("Drift was not measured. %s", why)
        create_markdown_artifact(key="drift", markdown=f"{shown}\n\nNot compared: {why}")
        return
    if drift is None:
        return
    create_markdown_artifact(key="drift", markdown=f"{shown}\n\n{drift.as_markdown()}")
    get_run_logger().info(drift.headline)
    if drift.drifted:
        emit_drift(drift.version.rpartition("/")[0], drift)
