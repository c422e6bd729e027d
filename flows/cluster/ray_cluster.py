"""Stages on a Ray cluster, if `LECTERN_RAY_ADDRESS` names one. Their outputs come back through the DVC remote."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prefect import get_run_logger
from prefect.client.schemas.objects import State

import flows
import pipeline
from flows.cluster import work_tree_changes
from flows.cluster.worker import Source, run_stage_there
from flows.execution.child_process import Child
from flows.execution.slots import GPU
from flows.execution.stage import environment, follow, last_lines, process_count
from flows.graph.command_line import dvc_command
from flows.graph.plan import Stage, read_plan
from flows.graph.push import push_command, push_environment
from flows.services.prefect_server import configured_url
from pipeline.errors import TemporaryFailure, UsageError
from pipeline.extras import require_extra
from pipeline.redaction import without_user
from pipeline.registry.lineage import git

if TYPE_CHECKING:
    from prefect_ray.task_runners import PrefectRayFuture, RayTaskRunner

ADDRESS = "LECTERN_RAY_ADDRESS"

LOST_MACHINES = 3
"""Number of restarts of a stage on another machine after its own has failed."""

POLL_SECONDS = 3.0
"""Seconds between checks whether a user cancelled the flow run."""


@dataclass(frozen=True)
class Machines:
    """Resources that a stage may request from the cluster."""

    gpus: int
    """GPUs of the machine that has most."""
    cores: int
    """Processors of the smallest machine that has any."""

    def resources(self, slot: str | None, devices: int) -> dict[str, int]:
        """Return the resources of a stage in Ray's terms.

        Args:
            slot: `gpu` for a stage that uses accelerators. Without GPUs it gets all processors of a machine.
            devices: number of accelerators.

        Raises:
            UsageError: no machine has so many GPUs.
        """
        if slot != GPU:
            return {"num_cpus": 1}
        if devices > self.gpus > 0:
            raise UsageError(
                f"In params.yaml, processes is {devices}, and no machine of the cluster has more than {self.gpus} GPUs."
                " Lower it."
            )
        return {"num_cpus": 1, "num_gpus": devices} if self.gpus else {"num_cpus": self.cores}


def address() -> str | None:
    """Return the address of the Ray cluster to run on, or None."""
    return os.environ.get(ADDRESS) or None


def run(
    stages: Sequence[Stage],
    run_here: Callable[[list[Stage]], dict[str, str]],
    reason: Callable[[State], str],
    stop_if_cancelled: Callable[[], None],
) -> dict[str, str]:
    """Run each of `stages` after its upstream stages, on the cluster if DVC can bring its outputs back.

    Args:
        stages: the stages to run, in order.
        run_here: runs the other stages on this machine: those that change the registry, and all that depend on them.
        reason: returns the reason of a failure.
        stop_if_cancelled: raises an error if a user cancelled the flow run. The stages are then stopped.

    Returns:
        The reason of each failure by stage.

    Raises:
        UsageError: the cluster, the repository or the DVC remote is not ready; the message says what to do.
        TemporaryFailure: the outputs of the stages cannot be fetched.
    """
    if not stages:
        return {}
    source = shared_source()
    there = remote_stages(stages)
    with connected() as (runner, machines):
        _push_inputs(stages)
        states = _run_there(there, source, runner, machines, stop_if_cancelled)
    done = [name for name, state in states.items() if state.is_completed()]
    if done:
        _run(dvc_command("repro", "--pull", *done))
    rest = without_downstream([stage for stage in stages if stage not in there], of=states.keys() - done)
    failures = {name: reason(state) for name, state in states.items() if state.is_failed() or state.is_crashed()}
    return failures | run_here(rest)


def remote_stages(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages that can run on another machine: the run cache restores them and all their upstream stages."""
    stay = {stage.name for stage in stages if not stage.restorable}
    return without_downstream([stage for stage in stages if stage.restorable], of=stay)


def without_downstream(stages: Iterable[Stage], of: Iterable[str]) -> list[Stage]:
    """Return `stages`, which are in order, without those that depend on a stage named in `of`."""
    out, left = set(of), list[Stage]()
    for stage in stages:
        if out.isdisjoint(stage.upstream):
            left.append(stage)
        else:
            out.add(stage.name)
    return left


def shared_source() -> Source:
    """Return this work tree's commit, which other machines can clone, and the files that the run changes in it.

    Raises:
        UsageError: other machines cannot get this state; the message says what to do.
    """
    changed = work_tree_changes.changed()
    if local := [str(path) for path in changed if not work_tree_changes.can_travel(path)]:
        raise UsageError(
            "The work tree has changes that other machines would not see. Commit and push them:\n" + "\n".join(local)
        )
    commit, repository = git("rev-parse", "HEAD"), git("remote", "get-url", "origin")
    if not repository:
        raise UsageError(
            "The machines of a cluster clone this repository from its git remote 'origin', which does not exist. "
            "Add it with 'git remote add origin ADDRESS' and push."
        )
    git("fetch", "--quiet", "origin")
    if not git("for-each-ref", "--contains", commit, "refs/remotes/origin"):
        raise UsageError(f"Commit {commit[:10]} is not in {repository}, which other machines clone. Push it.")
    _require_dvc_remote()
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    if tracking.startswith("sqlite"):
        raise UsageError(
            f"MLFLOW_TRACKING_URI is {tracking}, a file that other machines cannot reach. "
            "Set it to the address of a tracking server; 'lectern up' starts one."
        )
    return Source(repository, commit, without_user(tracking), work_tree_changes.read(changed))


def _require_dvc_remote() -> None:
    """Check that all machines reach the DVC remote.

    Raises:
        UsageError: the committed DVC configuration names no remote, or one at another place in each work tree.
    """
    # A clone sees only this file. DVC itself would make paths absolute and add the settings of .dvc/config.local.
    config = configparser.ConfigParser(interpolation=None)
    config.read(Path(".dvc", "config"), encoding="utf-8")
    name = config.get("core", "remote", fallback=None)
    if name is None:
        raise UsageError(
            "Machines exchange the outputs of stages through a DVC remote, and .dvc/config names none. Add one that "
            "all of them reach, such as 'dvc remote add --default shared s3://BUCKET/PATH', commit .dvc/config and "
            "push it."
        )
    url = config.get(f"'remote \"{name}\"'", "url", fallback="")
    if "://" not in url and not Path(url).is_absolute():
        raise UsageError(
            f"The DVC remote '{name}' is {url}, a path that is another place in each machine's work tree. "
            "Write an absolute path on a disk that all of them share, or a bucket."
        )


@contextmanager
def connected() -> Iterator[tuple[RayTaskRunner, Machines]]:
    """Yield a task runner on the cluster, and the cluster's resources.

    Raises:
        UsageError: Ray is not installed, no cluster answers, or other machines cannot reach our servers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    require_extra("ray", user=f"{ADDRESS}={address()}")
    import ray
    from prefect_ray.task_runners import RayTaskRunner

    # All machines run this code of the flow. The code of the stages comes with the commit.
    code = [str(Path(package.__file__ or "").parent) for package in (flows, pipeline)]
    try:
        # The runner would start a cluster of its own if it found none.
        ray.init(address(), runtime_env={"py_modules": code}, log_to_driver=False, namespace="lectern")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"No Ray cluster answers at {ADDRESS}={address()} ({error}). "
            "Start one with 'ray start --head', or unset the variable."
        ) from None
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        _require_reachable({node["NodeManagerAddress"] for node in nodes} - {ray.util.get_node_ip_address()})
        cores = [int(cpus) for node in nodes if (cpus := node["Resources"].get("CPU", 0)) >= 1]
        gpus = [int(node["Resources"].get("GPU", 0)) for node in nodes]
        machines = Machines(gpus=max(gpus, default=0), cores=min(cores, default=1))
        get_run_logger().info("Ray: %d nodes, %d processors, %d GPUs.", len(nodes), sum(cores), sum(gpus))
        with RayTaskRunner() as runner:
            yield runner, machines
    finally:
        ray.shutdown()


def _require_reachable(others: set[str]) -> None:
    """Check that the machines at the addresses `others` reach our servers.

    Raises:
        UsageError: the Prefect or the MLflow server listens only to this machine.
    """
    addresses = {"PREFECT_API_URL": configured_url() or "", "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    for name, url in addresses.items():
        if others and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1"):
            raise UsageError(
                f"{name} is {url or 'not set'}, which the other machines of the cluster cannot reach. "
                "Start that server on an address that they reach, and set the variable to it."
            )


def _run_there(
    stages: Sequence[Stage],
    source: Source,
    runner: RayTaskRunner,
    machines: Machines,
    stop_if_cancelled: Callable[[], None],
) -> dict[str, State]:
    """Run `stages` on the cluster; return the final state of each. A stage does not start if an upstream one failed."""
    import ray
    from prefect_ray.context import remote_options

    futures: dict[str, PrefectRayFuture[None]] = {}
    try:
        for stage in stages:
            upstream = [futures[name] for name in stage.upstream if name in futures]
            with remote_options(**machines.resources(stage.slot, process_count(stage.name)), max_retries=LOST_MACHINES):
                parameters = {"stage": stage, "source": source, "upstream": upstream}
                # Prefect shows this name for a task whose upstream task failed.
                futures[stage.name] = runner.submit(run_stage_there.with_options(name=stage.name), parameters)
        pending = [future.wrapped_future for future in futures.values()]
        while pending:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=POLL_SECONDS)
            stop_if_cancelled()
    finally:
        for future in futures.values():
            ray.cancel(future.wrapped_future)  # does nothing to a task that has ended
    for future in futures.values():
        future.wait()
    return {name: future.state for name, future in futures.items()}


def _push_inputs(to_run: Sequence[Stage]) -> None:
    """Push the outputs of the stages that are up to date here, so that no machine runs them again."""
    names = {stage.name for stage in to_run}
    fresh = [stage.name for stage in read_plan(Path.cwd()).stages if stage.restorable and stage.name not in names]
    _run(dvc_command("push", "--quiet"))
    _run(push_command(fresh), push_environment())


def _run(command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
    """Run a command that exchanges data with the DVC remote; log its output.

    Raises:
        TemporaryFailure: the command failed.
    """
    with Child(command, env={**environment(), **(variables or {})}) as child:
        code, output = follow(child)
    if code:
        raise TemporaryFailure(
            f"'{' '.join(command)}' failed with exit code {code}. Check that this machine reaches the DVC remote.\n"
            f"{last_lines(output)}"
        )
