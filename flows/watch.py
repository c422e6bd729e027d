"""Looks whether the workbook has become newer, and has it trained on if so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from filelock import Timeout
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed
from pydantic import Field

from flows.graph.plan import Busy, read_plan
from flows.graph.trained_workbooks import trained_on
from flows.graph.work_tree_lock import work_tree_lock
from flows.graph.workbook import as_it_is_now, import_file, replace_by
from flows.reporting.notifications import notify_failure
from flows.reporting.run_names import commit_and_workbook
from pipeline.data.workbook import IngestSettings, ingest
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords
from pipeline.registry.lineage import md5

Training = Annotated[str, Field(pattern="^train/[^/]+$", max_length=200)]


class Overtaken(Exception):
    """Another workbook was chosen while this one was fetched."""


@flow(
    name="watch",
    flow_run_name=commit_and_workbook,
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def watch(train: Training = "train/nightly") -> State:
    """Fetches the workbook from where `lectern use` took it, a file or a URL; if it is newer, starts a training.

    A workbook that is broken starts none, and replaces none: the run fails, and lists its problems.

    Args:
        train: The deployment that trains, as train/NAME.
    """
    try:
        workbook, source = named()
        with nothing_at_work():
            pass
        # Without the lock: a download takes its time, in which a run may begin and end.
        with if_changed(workbook) as new, nothing_at_work():
            if named() != (workbook, source):
                raise Overtaken
            if new:
                replace_by(new, workbook)
                get_run_logger().info("%s is as it is now where it came from.", workbook)
            newer = md5(workbook) != trained_on(workbook)
            if newer:
                ingest(workbook)
    except (Timeout, Busy, Overtaken) as why:
        what = "Somebody chose another workbook" if isinstance(why, Overtaken) else "A run is at work in this work tree"
        return Completed(message=f"{what}; the next run of this will look again.")
    except (Rejected, UsageError) as error:
        return Failed(message=hide_passwords(str(error)))
    except TemporaryFailure as error:
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


@contextmanager
def nothing_at_work() -> Iterator[None]:
    """Hold the work tree's lock for the block, so that the workbook stays what a run reads.

    Raises:
        Timeout: a run of a flow is at work.
        Busy: DVC is.
    """
    with work_tree_lock().acquire(timeout=0):
        read_plan(Path.cwd())
        yield


def named() -> tuple[Path, bytes | None]:
    """The workbook that `params.yaml` names, and what DVC notes of where it came from."""
    workbook = IngestSettings.read().workbook
    imported = import_file(workbook)
    return workbook, imported.read_bytes() if imported else None


@contextmanager
def if_changed(workbook: Path) -> Iterator[Path | None]:
    """Yield a copy of the workbook if it has changed where it came from, and is fit; None if it has not.

    Raises:
        WorkbookRejected: it is broken.
        Rejected: it is too large.
        TemporaryFailure: it is not there, cannot be taken, or takes too long.
    """
    if import_file(workbook) is None:
        get_run_logger().info("%s came from no file or URL: `lectern use SOURCE` remembers one.", workbook)
        yield None
        return
    with as_it_is_now(workbook) as new:
        if md5(new) == md5(workbook):
            yield None
            return
        ingest(new)
        yield new
