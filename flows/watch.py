"""Looks whether the workbook has become newer, and has it trained on if so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from filelock import Timeout
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed, Failed

from flows.graph import Busy, read_plan
from flows.naming import commit_and_workbook
from flows.notify import tell
from flows.work_tree import work_tree_lock
from pipeline.addresses import hide_passwords
from pipeline.data.adopt import import_file
from pipeline.data.problems import WorkbookRefused
from pipeline.data.workbook import IngestSettings, ingest
from pipeline.errors import Misused


@flow(name="watch", flow_run_name=commit_and_workbook, persist_result=False, on_failure=[tell], on_crashed=[tell])
def watch(train: str = "train/nightly") -> State:
    """Fetches the workbook from where `lectern use` took it, a file or a URL; if it is newer, starts a training.

    A workbook that is broken starts none: the run fails, and lists its problems.

    Args:
        train: The deployment that trains.
    """
    workbook = IngestSettings.read().workbook
    try:
        with work_tree_lock().acquire(timeout=0):
            read_plan(Path.cwd())  # beside a `dvc repro` at work, the workbook stays what it reads
            fetch(workbook)
            newer = any(stage.name == "ingest" for stage in read_plan(Path.cwd()).to_run())
            if newer:
                ingest(workbook)
    except (Timeout, Busy):
        return Completed(message="A run is at work in this work tree; the next one of this will look again.")
    except (WorkbookRefused, Misused, Unreachable) as error:
        return Failed(message=hide_passwords(str(error)))
    if not newer:
        return Completed(message=f"{workbook} is what was trained on.")
    started = run_deployment(train, timeout=0)
    return Completed(message=f"{workbook} is newer than what was trained on: started {started.name}.")


class Unreachable(Exception):
    """The place that the workbook came from does not give it."""


def fetch(workbook: Path) -> None:
    """Has DVC take the workbook again, if it has changed where it came from.

    Raises:
        Unreachable: DVC cannot.
    """
    source = import_file(workbook)
    if source is None:
        get_run_logger().info("%s came from no file or URL: `lectern use SOURCE` remembers one.", workbook)
        return
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "update", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    get_run_logger().info(done.stdout.strip())
    if done.returncode:
        raise Unreachable(f"{workbook} cannot be fetched from where it came: {done.stderr.strip()}")
