"""Looks whether the workbook has become newer, and has it trained on if so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from filelock import Timeout
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed
from pydantic import Field

from flows.graph import Busy, read_plan
from flows.naming import commit_and_workbook
from flows.notify import tell
from flows.trained_on import trained_on
from flows.work_tree import work_tree_lock
from pipeline.addresses import hide_passwords
from pipeline.data.adopt import as_it_is_now, import_file, replace_by_new
from pipeline.data.problems import WorkbookRefused
from pipeline.data.workbook import IngestSettings, ingest
from pipeline.errors import Misused, Unavailable
from pipeline.registry.lineage import md5

Training = Annotated[str, Field(pattern="^train/[^/]+$", max_length=200)]


@flow(name="watch", flow_run_name=commit_and_workbook, persist_result=False, on_failure=[tell], on_crashed=[tell])
def watch(train: Training = "train/nightly") -> State:
    """Fetches the workbook from where `lectern use` took it, a file or a URL; if it is newer, starts a training.

    A workbook that is broken starts none, and replaces none: the run fails, and lists its problems.

    Args:
        train: The deployment that trains, as train/NAME.
    """
    try:
        workbook = IngestSettings.read().workbook
        with work_tree_lock().acquire(timeout=0):
            read_plan(Path.cwd())  # beside a `dvc repro` at work, the workbook stays what it reads
            fetch(workbook)
            newer = md5(workbook) != trained_on(workbook)
            if newer:
                ingest(workbook)
    except (Timeout, Busy):
        return Completed(message="A run is at work in this work tree; the next one of this will look again.")
    except (WorkbookRefused, Misused) as error:
        return Failed(message=hide_passwords(str(error)))
    except Unavailable as error:
        return Failed(message=hide_passwords(f"{workbook} cannot be fetched from where it came. {error}"))
    if not newer:
        return Completed(message=f"{workbook} is what was trained on.")
    try:
        started = run_deployment(train, timeout=0)
    except ObjectNotFound:
        return Failed(
            message=f"{workbook} is newer than what was trained on, and there is no deployment '{train}' to train it. "
            "`prefect deployment ls` names those that there are; the next run of this tries again."
        )
    return Completed(message=f"{workbook} is newer than what was trained on: started {started.name}.")


def fetch(workbook: Path) -> None:
    """Takes the workbook again, if it has changed where it came from, and only if it is fit.

    Raises:
        WorkbookRefused: it is broken; the one before stays.
        Unavailable: it is not there, or cannot be taken.
    """
    if import_file(workbook) is None:
        get_run_logger().info("%s came from no file or URL: `lectern use SOURCE` remembers one.", workbook)
        return
    # Aside, since `dvc update` removes what it is to replace before it looks at what there is instead.
    with as_it_is_now(workbook) as new:
        if md5(new) == md5(workbook):
            return
        ingest(new)
    replace_by_new(workbook)
    get_run_logger().info("%s is as it is now where it came from.", workbook)
