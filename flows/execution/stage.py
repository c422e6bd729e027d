"""One stage as a Prefect task. DVC decides whether there is anything to run, and runs it in a process of its own."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from prefect import get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed
from prefect.tasks import Task

from flows.execution.child_process import Child
from flows.execution.run_processes import Crew
from flows.execution.slots import Stopped
from flows.graph.plan import Stage
from pipeline.errors import TemporaryFailure, UsageError
from pipeline.paths import PARAMS
from pipeline.redaction import hide_passwords
from pipeline.settings import read_params, train_settings

RETRY_AFTER = [5, 20]
"""Seconds before the second and before the third attempt at a stage that the infrastructure broke."""

TAIL = 15
"""Lines of its output that the error of a command carries which broke."""

LONGEST = 50_000
"""Characters that the words of one refusal may take. What Prefect tells of a run's end holds 100,000."""


class StageRejected(Exception):
    """The stage said no: to the data, the model or the settings. Trying again would change nothing."""


class StageBroke(Exception):
    """The stage ended for a reason that is not in its inputs, such as a lock, lack of memory, a server away."""


def log_without_traceback(logger: str, is_told: Callable[[BaseException | None], bool]) -> None:
    """Has `logger` of Prefect's say no more than an error's own words, where `is_told` holds of it."""

    def without_traceback(record: logging.LogRecord) -> bool:
        if record.exc_info and is_told(record.exc_info[1]):
            record.exc_info = None
        return True

    logging.getLogger(logger).addFilter(without_traceback)


# Prefect shows where in this file the error was raised, which says nothing of the stage.
log_without_traceback("prefect.task_runs", lambda error: isinstance(error, StageBroke | TemporaryFailure))


def worth_another_attempt(_task: Task, _run: TaskRun, state: State) -> bool:
    return not isinstance(state.result(raise_on_failure=False), StageRejected | Stopped | UsageError)


stage_task = functools.partial(
    task,
    name="stage",
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(RETRY_AFTER),
    retry_delay_seconds=RETRY_AFTER,
    retry_condition_fn=worth_another_attempt,
)
"""What makes a Prefect task of a function that runs a command: by default of one that is given a `stage`."""


@stage_task()
def run_stage(stage: Stage, crew: Crew) -> None:
    """Brings `stage` up to date.

    Raises:
        StageRejected, StageBroke: it failed; the message ends with what it printed, as `failure` tells.
        Stopped: the flow run is over.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage.name]
    code, output = run_logged(command, crew, slot=stage.slot, devices=processes(stage.name))
    if code:
        raise failure(stage.name, code, output)


def processes(stage: str) -> int:
    """How many share the work of a stage, as params.yaml says of the training of a model; 1 of all others.

    What is no such number is left to the stage, which says what is wrong with it.
    """
    kind, _, model = stage.partition("@")
    if kind != "train" or not PARAMS.is_file():
        return 1
    count = train_settings(read_params(), model).get("processes")
    return count if isinstance(count, int) and count > 1 else 1


def ended_by(error: Exception) -> State:
    """How a flow run ends that `error` ends: failed, in words of ours and without a traceback.

    Raises:
        Exception: `error` itself, where it is a bug.
    """
    from pipeline.registry.outages import translate_error  # with MLflow, which takes seconds

    if ours := translate_error(error):
        return Failed(message=hide_passwords(str(ours)))
    raise error


def run_logged(command: Sequence[str], crew: Crew, *, slot: str | None, devices: int = 1) -> tuple[int, list[str]]:
    """Runs `command` as a child whose lines Prefect logs. Returns its exit code and the lines.

    Raises:
        Stopped: the flow run is over.
    """
    with crew.run(command, environment(), slot=slot, devices=devices) as child:
        return follow(child)


def follow(child: Child) -> tuple[int, list[str]]:
    """Logs what `child` prints. Returns its exit code and those lines."""
    logger = get_run_logger()
    output: list[str] = []
    for line in map(hide_passwords, filter(str.strip, child.lines())):
        logger.info(line)
        output.append(line)
    return child.wait(), output


def last_lines(output: Sequence[str]) -> str:
    """What an error carries of the output of a command that broke."""
    return _indented(output[-TAIL:])


def refusal(output: Sequence[str]) -> str:
    """What an error carries of the output of a command that said no: all of it, or the last of it and how much more.

    Whoever is to mend the data needs every line.
    """
    room, kept = LONGEST, 0
    for line in reversed(output):
        room -= len(line)
        if room < 0 < kept:
            break
        kept += 1
    if left_out := len(output) - kept:
        return _indented([f"… {left_out:,} more lines before these, in the log", *output[left_out:]])
    return _indented(output)


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


def failure(name: str, code: int, output: Sequence[str]) -> StageRejected | StageBroke:
    """What it means that DVC ended with `code` after printing `output`: all of which is told if the stage said no.

    DVC itself ends with 255 whatever happened; how the stage's own command ended stands in its last line.
    """
    last = output[-1] if output else ""
    if ended := re.match(r"ERROR: failed to reproduce .*, exited with (-?\d+)$", last):
        code, output = int(ended[1]), output[:-1]
    heading = f"Running stage '{name}':"
    if heading in output:
        output = output[output.index(heading) + 2 :]
    said = refusal(output)
    if re.match(r"ERROR: failed to reproduce .*(missing data|dependency .* does not exist|No such file)", last):
        return StageRejected(f"{name} lacks an input:\n{said}")
    match code:
        case 1:
            return StageRejected(f"{name} was refused:\n{said}")
        case 2:
            return StageRejected(f"{name} has wrong settings:\n{said}")
        case _:
            return StageBroke(f"{name} broke with exit code {code}:\n{last_lines(output)}")


def environment() -> dict[str, str]:
    """That of a stage: ours, and what tells it of the flow run."""
    return os.environ | {
        # dvc.yaml says `python`: it shall be this one, also where its environment is not activated.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "true",
        "LECTERN_FLOW_RUN_ID": runtime.flow_run.id or "",
        "LECTERN_FLOW_RUN_URL": runtime.flow_run.ui_url or "",
    }
