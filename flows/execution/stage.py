"""One stage as a Prefect task. DVC decides whether the stage must run, and runs it in a process of its own."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed
from prefect.tasks import Task

from flows.execution import slots
from flows.execution.child_process import Child
from flows.execution.run_processes import RunProcesses
from flows.execution.slots import Stopped
from flows.graph.command_line import dvc_command
from flows.graph.plan import Stage
from pipeline.command import STAGE_REPORT, StageReport
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.paths import PARAMS
from pipeline.redaction import hide_passwords
from pipeline.settings import read_params, train_settings

P = ParamSpec("P")
R = TypeVar("R")

RETRY_AFTER = [5, 20]
"""Seconds before the second and the third attempt at a stage that the infrastructure broke."""

KILLED = 128  # exit code after signal N: 128 + N

TAIL = 15
"""Lines of output in the error of a command that broke."""

LONGEST = 50_000
"""Characters of one rejection in an error. Prefect's message about the end of a run holds 100,000."""


class StageRejected(Exception):
    """The stage rejected its data, model or settings. Another attempt would change nothing."""


class StageBroke(Exception):
    """The stage failed for a reason outside its inputs, such as a lock, too little memory or an absent server."""


def log_without_traceback(logger: str, is_explained: Callable[[BaseException | None], bool]) -> None:
    """Make one of Prefect's loggers leave out the traceback of errors whose message explains them."""

    def without_traceback(record: logging.LogRecord) -> bool:
        if record.exc_info and is_explained(record.exc_info[1]):
            record.exc_info = None
        return True

    logging.getLogger(logger).addFilter(without_traceback)


# The traceback would show a line of this file, which does not help the user.
log_without_traceback("prefect.task_runs", lambda error: isinstance(error, StageBroke | TemporaryFailure))


def may_pass(_task: Task[Any, Any], _run: TaskRun, state: State) -> bool:
    """Return whether another attempt at a failed task may succeed."""
    return not isinstance(state.result(raise_on_failure=False), StageRejected | Stopped | UsageError)


def stage_task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Return a decorator for a Prefect task that runs a command. By default, the task has a parameter `stage`.

    Args:
        options: options of Prefect's `task`, which replace the defaults.
    """
    defaults: dict[str, Any] = {
        "name": "stage",
        "task_run_name": "{stage.name}",
        "cache_policy": NO_CACHE,
        "persist_result": False,
        "retries": len(RETRY_AFTER),
        "retry_delay_seconds": RETRY_AFTER,
        "retry_condition_fn": may_pass,
    }
    return task(**{**defaults, **options})


@stage_task()
def run_stage(stage: Stage, processes: RunProcesses) -> None:
    """Bring `stage` up to date.

    Raises:
        StageRejected, StageBroke: the stage failed; the message explains why.
        Stopped: the flow run has ended.
    """
    command = dvc_command("repro", "--single-item", stage.name)
    with stage_report() as report:
        env = environment() | {STAGE_REPORT: str(report)}
        with processes.run(
            command, env, slot=stage.slot, devices=process_count(stage.name), urgency=stage.depth
        ) as child:
            code, output = follow(child)
        if code:
            raise failure(stage, output, StageReport.read(report), Path.cwd())


@contextmanager
def stage_report() -> Iterator[Path]:
    """Yield the path of a file in which a stage can report how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "stage.json"


def process_count(stage: str) -> int:
    """Return the number of processes that train a model, by params.yaml; 1 for any other stage.

    A wrong value counts as 1. The stage itself reports it.
    """
    kind, _, model = stage.partition("@")
    if kind != "train" or not PARAMS.is_file():
        return 1
    count = train_settings(read_params(), model).get("processes")
    return count if isinstance(count, int) and count > 1 else 1


def failed_state(error: Exception) -> State:
    """Return the final state of a flow run that failed with a known error: its message, without a traceback.

    Raises:
        Exception: `error` itself, if it is a bug.
    """
    from pipeline.registry.outages import translate_error  # with MLflow, which takes seconds

    if known := translate_error(error):
        return Failed(message=hide_passwords(str(known)))
    raise error


def run_lectern(*arguments: str, processes: RunProcesses) -> None:
    """Run a command of Lectern that titles texts, and log its output in Prefect.

    Raises:
        StageRejected, StageBroke: the command failed; the message quotes its output.
        Stopped: the flow run has ended.
    """
    # A processor is shared with a training. An accelerator's memory is too small for both.
    slot = slots.GPU if any(slots.devices()) else None
    with processes.run([sys.executable, "-m", "lectern", *arguments], environment(), slot=slot) as child:
        code, output = follow(child)
    if code:
        heading = f"`lectern {arguments[0]}` failed with exit code {code}:"
        if code == TemporaryFailure.exit_code or code > KILLED:
            raise StageBroke(f"{heading}\n{last_lines(output)}")
        raise StageRejected(f"{heading}\n{rejection(output)}")


def follow(child: Child) -> tuple[int, list[str]]:
    """Log the output of `child` until it ends; return its exit code and the lines."""
    logger = get_run_logger()
    output: list[str] = []
    for line in map(hide_passwords, filter(str.strip, child.lines())):
        logger.info(line)
        output.append(line)
    return child.wait(), output


def last_lines(output: Sequence[str]) -> str:
    """Return the last lines of a command's output, indented."""
    return _indented(output[-TAIL:])


def rejection(lines: Sequence[str]) -> str:
    """Return all lines of a rejection, indented: a user needs each of them. If there are too many, return the last."""
    room, kept = LONGEST, 0
    for line in reversed(lines):
        room -= len(line)
        if room < 0 < kept:
            break
        kept += 1
    if left_out := len(lines) - kept:
        return _indented([f"… {left_out:,} more lines before these, in the log", *lines[left_out:]])
    return _indented(lines)


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


def failure(
    stage: Stage, output: Sequence[str], report: StageReport | None, project: Path
) -> StageRejected | StageBroke:
    """Return the error of a stage for which DVC failed.

    Args:
        stage: the stage.
        output: the lines that DVC and the stage printed.
        report: the stage's report; None if the stage was killed, is not a stage of Lectern's, or did not start.
        project: the folder in which it ran.
    """
    if report is None:
        if missing := [path for path in stage.inputs if not (project / path).exists()]:
            return StageRejected(f"{stage.name} lacks an input:\n{_indented(missing)}")
        return StageBroke(f"{stage.name} broke:\n{last_lines(output)}")
    lines = report.message.splitlines()
    match report.exit_code:
        case Rejected.exit_code:
            return StageRejected(f"{stage.name} was refused:\n{rejection(lines)}")
        case UsageError.exit_code:
            return StageRejected(f"{stage.name} has wrong settings:\n{rejection(lines)}")
        case code:
            return StageBroke(f"{stage.name} broke with exit code {code}:\n{last_lines(lines)}")


def environment() -> dict[str, str]:
    """Return the environment of a stage: that of this process, and what identifies the flow run."""
    return os.environ | {
        # dvc.yaml says `python`: this one, even if its virtual environment is not active.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "true",
        "LECTERN_FLOW_RUN_ID": runtime.flow_run.id or "",
        "LECTERN_FLOW_RUN_URL": runtime.flow_run.ui_url or "",
    }
