"""The flow `train`: run the stale stages of DVC's graph, each as a Prefect task. `lectern run` runs it once."""

from __future__ import annotations

import concurrent.futures
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import httpx
from prefect import flow, get_client, get_run_logger, runtime
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.cluster import ray_cluster
from flows.execution.child_process import GRACE_SECONDS
from flows.execution.run_processes import RunProcesses
from flows.execution.stage import failed_state, log_without_traceback, run_stage
from flows.graph.exclusive_access import only_run_in_work_tree
from flows.graph.plan import Busy, Plan, Stage, read_plan, register_after_experiment
from flows.graph.run_copy import RunParameters, copy_of_project, remove_old_copies
from flows.reporting import artifacts
from flows.reporting.notifications import notify_failure
from flows.reporting.run_names import commit_and_workbook
from flows.services.prefect_server import is_unavailable, server_for_run, warn_if_not_stored
from flows.services.service import ServiceDied
from pipeline.command import INTERRUPTED
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.models.checkpoint_sources import require_checkpoints
from pipeline.paths import PARAMS, REPORTS
from pipeline.settings import read_params

THREADS = 64
"""Threads that wait for stages: many more than slots, so that a stage that waits for its slot delays no other stage."""

POLL_SECONDS = 3.0
"""Seconds between checks whether a user cancelled the flow run, or whether DVC is free."""

RECORD_SECONDS = 10.0
"""Longest wait for Prefect to record the final states of the task runs, which it receives as events."""

SERVER_LOST = (
    "Prefect's server went away before the run ended: it stays Running there until somebody sets its state. The "
    "results of the finished stages are kept: 'lectern run' runs the remaining ones."
)

# Prefect adds a traceback of its own code if its server is away at the end of a run.
log_without_traceback("prefect.flow_runs", is_unavailable)


def _models() -> tuple[str, ...]:
    with suppress(UsageError):  # the stages report what is wrong with params.yaml
        return tuple(read_params().get("models") or ()) if PARAMS.is_file() else ()
    return ()


if TYPE_CHECKING:
    Model = str
else:
    # Prefect's form offers these names. It is created together with a deployment.
    _MODELS = _models()
    Model = Literal[_MODELS] if _MODELS else str
Epochs = Annotated[int, Field(ge=1, le=1000)]


class RunCancelled(Exception):
    """A user cancelled the flow run in Prefect."""


@flow(
    name="train",
    flow_run_name=commit_and_workbook,
    task_runner=cast("Any", ThreadPoolTaskRunner(max_workers=THREADS)),
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def train(models: list[Model] | None = None, epochs: Epochs | None = None, workbook: str | None = None) -> State:
    """Bring every stage of `dvc.yaml` up to date: the stale stages and all that depend on them, in parallel.

    A stage that fails stops only the stages that depend on it. A pretrained model that cannot be reached stops the run
    before the first stage.

    A run with parameters works in a copy of the project. It changes none of your files, and its reports are in
    `reports/runs`.

    Args:
        models: The models that take part in this run. Empty: the contestants of params.yaml.
        epochs: Number of passes through the training split. Empty: the value in params.yaml. A model that is used
            without training stays so.
        workbook: The workbook to train on: the path of an .xlsx file or of a folder with tables, on the machine that
            runs this, or a URL. Empty: the workbook of params.yaml.
    """
    with only_run_in_work_tree(say=get_run_logger().info):
        parameters = RunParameters(tuple(models or ()), epochs, workbook)
        try:
            remove_old_copies()
            if parameters:
                wait_for_dvc()  # which may be changing the files that the copy is made of
            with copy_of_project(parameters) if parameters else nullcontext(REPORTS) as reports:
                stages, failures = bring_up_to_date()
        except RunCancelled:
            return Cancelled(message="Cancelled; its stages were stopped.")
        except Exception as error:
            return failed_state(error)
        with warn_if_not_stored("all that the run's page shows"):
            artifacts.publish(failed=failures, with_runs=bool(stages), reports=reports)
        if failures:
            return Failed(message=summary(stages, failures))
        return Completed(message=f"{len(stages)} stages brought up to date." if stages else "Nothing was stale.")


def bring_up_to_date() -> tuple[list[Stage], dict[str, str]]:
    """Run the stale stages and those downstream; return the stages, and the reason of each failure by stage.

    Raises:
        RunCancelled: a user cancelled the flow run; its stages were stopped.
        Rejected: a pretrained model cannot be reached.
    """
    register_after_experiment()
    plan = wait_for_dvc()
    if first := plan.to_run_first():
        if failures := run(first):
            return first, failures
        plan = wait_for_dvc()
    stages = plan.to_run()
    names = ", ".join(stage.name for stage in stages)
    get_run_logger().info("To run: %s", names or "nothing, every stage is up to date")
    require_checkpoints(stage.name for stage in stages)
    failures = ray_cluster.run(stages, run, reason, stop_if_cancelled) if ray_cluster.address() else run(stages)
    return [*first, *stages], failures


def wait_for_dvc() -> Plan:
    """Return the plan, once no other DVC process runs in this work tree.

    Raises:
        RunCancelled: a user cancelled the flow run meanwhile.
    """
    while True:
        try:
            return read_plan(Path.cwd())
        except Busy as busy:
            get_run_logger().info("Waiting for another DVC process. %s", busy)
            time.sleep(POLL_SECONDS)
            stop_if_cancelled()


def run(stages: list[Stage]) -> dict[str, str]:
    """Run each of `stages` after its upstream stages; return the reason of each failure by stage.

    Raises:
        RunCancelled: a user cancelled the flow run; its stages were stopped.
    """
    if not stages:
        return {}
    processes = RunProcesses()
    processes.declare_slots()
    futures: dict[str, PrefectConcurrentFuture[None]] = {}
    try:
        for stage in stages:
            upstream = [futures[name] for name in stage.upstream if name in futures]
            future = run_stage.submit(stage, processes, wait_for=upstream, return_state=False)
            futures[stage.name] = cast("PrefectConcurrentFuture[None]", future)
        wait_for_all(futures.values())
    finally:
        processes.stop()
        # After a cancellation: no stage may still write when the copy of the project is removed.
        concurrent.futures.wait({future.wrapped_future for future in futures.values()}, timeout=GRACE_SECONDS + 5)
    wait_until_recorded(set(futures))
    states = {name: final_state(future) for name, future in futures.items()}
    return {name: reason(state) for name, state in states.items() if state.is_failed() or state.is_crashed()}


def wait_for_all(futures: Iterable[PrefectConcurrentFuture[None]]) -> None:
    """Wait until all tasks have ended.

    Raises:
        RunCancelled: a user cancelled the flow run.
    """
    pending = {future.wrapped_future for future in futures}
    while pending:
        _, pending = concurrent.futures.wait(pending, timeout=POLL_SECONDS)
        stop_if_cancelled()


def final_state(future: PrefectConcurrentFuture[None]) -> State:
    """Return the final state of a task that has ended."""
    return cast("State", future.wrapped_future.result())


def stop_if_cancelled() -> None:
    """Raise `RunCancelled` if a user cancelled the flow run.

    Raises:
        RunCancelled: a user did.
    """
    if is_cancelled():
        raise RunCancelled


def is_cancelled() -> bool:
    """Return whether a user cancelled the flow run; False while the server is away."""
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        state = client.read_flow_run(runtime.flow_run.id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


def wait_until_recorded(names: set[str]) -> None:
    """Wait until Prefect has recorded the final states of the task runs, before its server may stop.

    Return at once if the server is away.
    """
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[runtime.flow_run.id]))
    deadline = time.monotonic() + RECORD_SECONDS
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            states = [run.state for run in client.read_task_runs(flow_run_filter=this_run) if run.name in names]
            final = [state for state in states if state and (state.is_final() or state.name == "NotReady")]
            if len(final) == len(names):
                return
            time.sleep(0.2)


def reason(state: State) -> str:
    """Return the reason of a failure: the error's message, else the message or the name of `state`."""
    error = state.result(raise_on_failure=False)
    return str(error) if isinstance(error, Exception) else state.message or state.name or "failed"


def summary(stages: list[Stage], failures: dict[str, str]) -> str:
    """Return the message of a failed run."""
    return "\n".join([f"{len(failures)} of {len(stages)} stages failed.", *failures.values()])


def run_once() -> None:
    """Run the flow once, as `lectern run` does.

    Raises:
        Rejected: a stage failed, or the Prefect server for this run did.
        UsageError: the configured Prefect server does not answer.
        TemporaryFailure: the Prefect server went away during the run.
        SystemExit: the run was interrupted.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with only_run_in_work_tree(say=partial(print, flush=True)), server_for_run():
            state = train(return_state=True)
    except ServiceDied as error:
        raise Rejected(str(error)) from None
    except httpx.HTTPError as error:
        if not is_unavailable(error):
            raise
        raise TemporaryFailure(SERVER_LOST) from None
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if not state.is_completed():
        raise Rejected(state.message or state.name)
