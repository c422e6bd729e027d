"""The flow: DVC's graph, stage by stage, as far as it is stale. `lectern run` runs it once."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import httpx
from prefect import flow, get_client, get_run_logger, runtime
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.cluster import ray_cluster
from flows.execution.run_processes import Crew
from flows.execution.stage import ended_by, log_without_traceback, run_stage
from flows.graph.plan import Busy, Plan, Stage, read_plan
from flows.graph.run_overrides import Epochs, Model, params_as_asked
from flows.graph.work_tree_lock import alone_in_work_tree
from flows.reporting import artifacts
from flows.reporting.notifications import notify_failure
from flows.reporting.run_names import commit_and_workbook
from flows.services.prefect_server import is_unavailable, server_for_run, warn_if_not_stored
from flows.services.service import ServiceDied
from pipeline.command import INTERRUPTED
from pipeline.errors import Rejected, TemporaryFailure
from pipeline.models.checkpoint_sources import require
from pipeline.paths import REGISTERED

THREADS = 64
"""Threads that wait for stages: many more than slots, so that a stage waiting for its slot holds up no other."""

LOOK_AGAIN = 3.0
"""Seconds between looks at whether somebody cancelled the flow run, or whether DVC is free."""

RECORDED_WITHIN = 10.0
"""Seconds that Prefect may take to write down the ends of the task runs, which reach it as events."""


UNTOLD = (
    "Prefect's server went away and was not told how the run ended: it stays Running there until somebody sets its "
    "state. What the stages have made is kept; 'lectern run' does what is left, if anything is."
)


# Where its server is gone at a run's end, Prefect shows where in its own code it found that out.
log_without_traceback("prefect.flow_runs", is_unavailable)


class RunCancelled(Exception):
    """Somebody cancelled the flow run in Prefect."""


@flow(
    name="train",
    flow_run_name=commit_and_workbook,
    task_runner=ThreadPoolTaskRunner(max_workers=THREADS),
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def train(models: list[Model] | None = None, epochs: Epochs | None = None, workbook: str | None = None) -> State:
    """Brings every stage of `dvc.yaml` up to date: the stale ones and what depends on them, side by side where it can.

    A stage that fails stops those that depend on it, and no other. A pretrained model that cannot be had stops all of
    them before the first one.

    Args:
        models: Those that take part in this run; none named: the contestants of params.yaml.
        epochs: How often each of them goes through the training split; empty: as params.yaml says. A model that is
            taken as it comes, without training, stays so.
        workbook: Train on this one: the path of an .xlsx or of a folder with tables, on the machine that runs this, or
            a URL; empty: the one that params.yaml names.
    """
    with alone_in_work_tree(say=get_run_logger().info):
        try:
            if models or epochs or workbook:
                wait_for_dvc()  # whose stages read the same params.yaml
            with params_as_asked(models, epochs, workbook):
                stages, failures = bring_up_to_date()
        except RunCancelled:
            return Cancelled(message="Cancelled; its stages were stopped.")
        except Exception as error:
            return ended_by(error)
        with warn_if_not_stored("all that the run's page shows"):
            artifacts.publish(failed=failures, with_runs=bool(stages))
        if failures:
            return Failed(message=summary(stages, failures))
        return Completed(message=f"{len(stages)} stages brought up to date." if stages else "Nothing was stale.")


def bring_up_to_date() -> tuple[list[Stage], dict[str, str]]:
    """Run the stale stages and those downstream. Returns the stages, and the reason of each failure by stage.

    Raises:
        RunCancelled: somebody cancelled the flow run; its stages were stopped.
        Rejected: a pretrained model is not to be had.
    """
    register_after_experiment()
    plan = wait_for_dvc()
    if first := plan.to_run_first():
        if failures := run(first):
            return first, failures
        plan = wait_for_dvc()
    stages = plan.to_run()
    named = ", ".join(stage.name for stage in stages)
    get_run_logger().info("To run: %s", named or "nothing, every stage is up to date")
    require(stage.name for stage in stages)
    failures = ray_cluster.run(stages, run, reason, stop_if_cancelled) if ray_cluster.address() else run(stages)
    return [*first, *stages], failures


def register_after_experiment() -> None:
    """Make the register stage stale where a DVC experiment, which registers nothing, was the last to run it."""
    if REGISTERED.exists() and "experiment" in json.loads(REGISTERED.read_text(encoding="utf-8")):
        REGISTERED.unlink()


def wait_for_dvc() -> Plan:
    """The plan, once no other DVC process is at work on it.

    Raises:
        RunCancelled: somebody cancelled the flow run meanwhile.
    """
    while True:
        try:
            return read_plan(Path.cwd())
        except Busy as busy:
            get_run_logger().info("Waiting for another DVC process. %s", busy)
            time.sleep(LOOK_AGAIN)
            stop_if_cancelled()


def run(stages: list[Stage]) -> dict[str, str]:
    """Runs each of `stages` after its upstream ones. Returns why, by name, for each that failed.

    Raises:
        RunCancelled: somebody cancelled the flow run; its stages were stopped.
    """
    if not stages:
        return {}
    crew = Crew()
    crew.declare_slots()
    futures: dict[str, PrefectConcurrentFuture[None]] = {}
    try:
        for stage in stages:
            upstream = [futures[name] for name in stage.upstream if name in futures]
            futures[stage.name] = run_stage.submit(stage, crew, wait_for=upstream)
        wait_for_all(futures.values())
    finally:
        crew.stop()
    wait_until_recorded(set(futures))
    ends = {name: future.wrapped_future.result() for name, future in futures.items()}
    return {name: reason(end) for name, end in ends.items() if end.is_failed() or end.is_crashed()}


def wait_for_all(futures: Iterable[PrefectConcurrentFuture[None]]) -> None:
    pending = {future.wrapped_future for future in futures}
    while pending:
        _, pending = concurrent.futures.wait(pending, timeout=LOOK_AGAIN)
        stop_if_cancelled()


def stop_if_cancelled() -> None:
    """
    Raises:
        RunCancelled: somebody cancelled the flow run.
    """
    if cancelled():
        raise RunCancelled


def cancelled() -> bool:
    """Whether somebody pressed Cancel. A server that is away for a while did not."""
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        state = client.read_flow_run(runtime.flow_run.id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


def wait_until_recorded(names: set[str]) -> None:
    """Gives Prefect a moment to write down how the task runs ended, before its server may go.

    Where it has gone already, there is nothing to wait for.
    """
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[runtime.flow_run.id]))
    deadline = time.monotonic() + RECORDED_WITHIN
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            states = [run.state for run in client.read_task_runs(flow_run_filter=this_run) if run.name in names]
            ended = [state for state in states if state and (state.is_final() or state.name == "NotReady")]
            if len(ended) == len(names):
                return
            time.sleep(0.2)


def reason(end: State) -> str:
    error = end.result(raise_on_failure=False)
    return str(error) if isinstance(error, Exception) else end.message or end.name


def summary(stages: list[Stage], failures: dict[str, str]) -> str:
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
        with alone_in_work_tree(say=print), server_for_run():
            state = train(return_state=True)
    except ServiceDied as error:
        raise Rejected(str(error)) from None
    except httpx.HTTPError as error:
        if not is_unavailable(error):
            raise
        raise TemporaryFailure(UNTOLD) from None
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if not state.is_completed():
        raise Rejected(state.message or state.name)
