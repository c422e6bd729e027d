"""The flow `titles`: every new transcript in the inbox gets its title. `lectern title FOLDER` does it, as a child."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled, Completed, Failed, State

from flows import slots
from flows.crew import Crew
from flows.naming import commit_and_workbook
from flows.notify import tell
from flows.stage import RETRY_AFTER, TAIL, StageBroke, StageRefused, run_logged, worth_another_attempt
from flows.train import RunCancelled, reason, wait_for_all, wait_until_recorded
from pipeline.errors import Misused
from pipeline.titles.inbox import TABLE, Row, read_rows

INBOX = Path("inbox")
OUTBOX = Path("titles")

TITLE_FOLDER = "title folder"

TRY_LATER = 75
KILLED = 128  # and the signal's number


@flow(name="titles", flow_run_name=commit_and_workbook, persist_result=False, on_failure=[tell], on_crashed=[tell])
def titles(inbox: Path = INBOX, outbox: Path = OUTBOX, again: bool = False) -> State:
    """Titles what is new in `inbox`; both folders lie in the project's.

    Args:
        inbox: The folder whose .txt files and workbooks are titled.
        outbox: The folder for titles.csv and the filled workbooks.
        again: Title anew what an earlier version has titled.

    Raises:
        Misused: a folder lies elsewhere.
    """
    source, target = in_project(inbox, "inbox"), in_project(outbox, "outbox")
    if inbox == INBOX:
        source.mkdir(exist_ok=True)  # so that a schedule has a folder to look into before anybody uses it
    before = read_rows(target / TABLE)
    crew = Crew()
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
    publish(new)
    end = future.wrapped_future.result()
    if end.is_failed() or end.is_crashed():
        return Failed(message=reason(end))
    return Completed(message=f"{len(new)} files titled." if new else "Nothing was new.")


def in_project(folder: Path, parameter: str) -> Path:
    """`folder` as an absolute path.

    Raises:
        Misused: it lies outside of the project's folder, or is that folder.
    """
    project = Path.cwd().resolve()
    found = (project / folder).resolve()
    if project not in found.parents:
        raise Misused(f"{parameter} is '{folder}', which is no folder inside of {project}. Name one that is.")
    return found


@task(
    name=TITLE_FOLDER,
    task_run_name=TITLE_FOLDER,
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(RETRY_AFTER),
    retry_delay_seconds=RETRY_AFTER,
    retry_condition_fn=worth_another_attempt,
)
def title_folder(inbox: Path, outbox: Path, again: bool, crew: Crew) -> None:
    """Runs the command.

    Raises:
        StageRefused, StageBroke: it failed; the message ends with the last lines that it printed.
        Stopped: the flow run is over.
    """
    command = [sys.executable, "-m", "pipeline", "title", str(inbox), "--out", str(outbox)]
    # A processor has room beside a training; an accelerator's memory has not.
    slot = slots.GPU if any(slots.devices()) else None
    code, output = run_logged([*command, *(["--again"] if again else [])], crew, slot=slot)
    if code:
        said = "\n".join(f"  {line}" for line in output[-TAIL:])
        broke = code == TRY_LATER or code > KILLED
        raise (StageBroke if broke else StageRefused)(f"Titling ended with exit code {code}:\n{said}")


def publish(rows: list[Row]) -> None:
    """Shows in Prefect's pages what was titled, if anything was."""
    if rows:
        table = [{name: cell for name, cell in asdict(row).items() if name != "sha256"} for row in rows]
        create_table_artifact(key="titles", table=table, description="What this run has titled.")
