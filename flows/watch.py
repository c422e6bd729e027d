"""The flow `watch`: update the workbook from its source, and start a training if it has changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

from filelock import Timeout
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed
from pydantic import Field

from flows.graph.exclusive_access import work_tree_lock
from flows.graph.plan import Busy, read_plan
from flows.graph.workbook import import_file, latest, replace_by, trained_on
from flows.reporting.notifications import notify_failure
from flows.reporting.run_names import commit_and_workbook
from pipeline.data.workbook import IngestSettings, ingest
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords
from pipeline.registry.lineage import md5

Training = Annotated[str, Field(pattern="^train/[^/]+$", max_length=200)]


class WorkbookReplaced(Exception):
    """A user chose another workbook while this one was downloaded."""


@flow(
    name="watch",
    flow_run_name=commit_and_workbook,
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def watch(train: Training = "train/nightly") -> State:
    """Update the workbook from the source that `lectern use` recorded, a file or a URL; start a training if it changed.

    A workbook with errors starts no training and replaces nothing: the run fails and lists the errors.

    Args:
        train: The deployment that trains, as train/NAME.
    """
    try:
        workbook, source = current_workbook()
        with idle_work_tree():
            pass
        # Without the lock: a download takes time, in which a run may start and end.
        with changed_copy(workbook) as new, idle_work_tree():
            if current_workbook() != (workbook, source):
                raise WorkbookReplaced
            if new:
                replace_by(new, workbook)
                get_run_logger().info("%s was updated from its source.", workbook)
            is_newer = md5(workbook) != trained_on(workbook)
            if is_newer:
                ingest(workbook, set_aside=IngestSettings.read().sets_aside)
    except (Timeout, Busy, WorkbookReplaced) as error:
        replaced = isinstance(error, WorkbookReplaced)
        why = "A user chose another workbook" if replaced else "Another run is using this work tree"
        return Completed(message=f"{why}; the next run of this flow will look again.")
    except (Rejected, UsageError) as error:
        return Failed(message=hide_passwords(str(error)))
    except TemporaryFailure as error:
        return Failed(message=hide_passwords(f"{workbook} cannot be updated from its source. {error}"))
    if not is_newer:
        return Completed(message=f"{workbook} has not changed since the last training.")
    try:
        started = cast("FlowRun", run_deployment(train, timeout=0))
    except ObjectNotFound:
        return Failed(
            message=f"{workbook} is newer than the last training, and there is no deployment '{train}' to train on it. "
            "`prefect deployment ls` lists the deployments. The next run of this flow tries again."
        )
    return Completed(message=f"{workbook} is newer than the last training: started {started.name}.")


@contextmanager
def idle_work_tree() -> Iterator[None]:
    """Hold the work tree's lock for the block, so that no run reads a workbook that changes.

    Raises:
        Timeout: a flow run is using the work tree.
        Busy: DVC is running in it.
    """
    with work_tree_lock().acquire(timeout=0):
        read_plan(Path.cwd())
        yield


def current_workbook() -> tuple[Path, bytes | None]:
    """Return the workbook of `params.yaml`, and DVC's record of its source if there is one."""
    workbook = IngestSettings.read().workbook
    record = import_file(workbook)
    return workbook, record.read_bytes() if record else None


@contextmanager
def changed_copy(workbook: Path) -> Iterator[Path | None]:
    """Yield a copy of the source of `workbook` if it has changed and has no errors; None if it has not changed.

    Raises:
        WorkbookRejected: the new content has errors.
        Rejected: the new content is too large.
        TemporaryFailure: the source does not exist, cannot be read, or takes too long.
    """
    if import_file(workbook) is None:
        get_run_logger().info("%s has no recorded source: `lectern use SOURCE` records one.", workbook)
        yield None
        return
    with latest(workbook) as new:
        if md5(new) == md5(workbook):
            yield None
            return
        ingest(new, set_aside=IngestSettings.read().sets_aside)
        yield new
