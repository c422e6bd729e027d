"""The stages over a Ray cluster, if `LECTERN_RAY_ADDRESS` names one. What they make comes back by the DVC remote."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from flows.cluster.worker import DVC, Source, run_stage_there, sharing
from flows.execution.child_process import Child
from flows.execution.slots import GPU
from flows.execution.stage import environment, follow, last_lines, processes
from flows.graph.plan import Stage, read_plan
from flows.services.prefect_server import configured_url
from pipeline.errors import TemporaryFailure, UsageError
from pipeline.extras import require_extra
from pipeline.redaction import without_user
from pipeline.registry.lineage import git

if TYPE_CHECKING:
    from prefect_ray.task_runners import PrefectRayFuture, RayTaskRunner

ADDRESS = "LECTERN_RAY_ADDRESS"

LOST_MACHINES = 3
"""How often a stage starts anew on another machine when its own is gone."""

LOOK_AGAIN = 3.0
"""Seconds between looks at whether somebody cancelled the flow run."""


@dataclass(frozen=True)
class Machines:
    """What a stage may ask the cluster for."""

    gpus: int
    """Of the machine that has most."""
    cores: int
    """Of the smallest machine that has any."""

    def share(self, slot: str | None, devices: int) -> dict[str, int]:
        """Of a stage that wants the accelerator: so many, or where there is none all processors of a machine.

        Raises:
            UsageError: no machine has so many.
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
    """That of the Ray cluster to run on, if any."""
    return os.environ.get(ADDRESS) or None


def run(
    stages: Sequence[Stage],
    here: Callable[[list[Stage]], dict[str, str]],
    reason: Callable[[State], str],
    stop_if_cancelled: Callable[[], None],
) -> dict[str, str]:
    """Runs each of `stages` after its upstream ones, on the cluster those that DVC can bring back.

    Returns why, by name, for each that failed, in the words of `reason`. The others, such as one that changes the
    registry, and what depends on them, are left to `here`.

    Raises:
        UsageError: the cluster, the repository or the DVC remote is not ready; the message says what to do.
        TemporaryFailure: what the stages made does not come back.
        Whatever `stop_if_cancelled` raises; the stages were stopped.
    """
    if not stages:
        return {}
    source = shared_source()
    there = travelling(stages)
    with connected() as (runner, machines):
        _give(stages)
        ends = _run_there(there, source, runner, machines, stop_if_cancelled)
    done = [name for name, end in ends.items() if end.is_completed()]
    if done:
        _run([*DVC, "repro", "--pull", *done])
    rest = without_downstream([stage for stage in stages if stage not in there], of=ends.keys() - done)
    failures = {name: reason(end) for name, end in ends.items() if end.is_failed() or end.is_crashed()}
    return failures | here(rest)


def travelling(stages: Sequence[Stage]) -> list[Stage]:
    """Those of `stages` that can run elsewhere: the run cache restores them, and all that they depend on."""
    stay = {stage.name for stage in stages if not stage.restorable}
    return without_downstream([stage for stage in stages if stage.restorable], of=stay)


def without_downstream(stages: Iterable[Stage], of: Iterable[str]) -> list[Stage]:
    """`stages`, which are in order, without those that depend on one named in `of`."""
    out, left = set(of), []
    for stage in stages:
        if out.isdisjoint(stage.upstream):
            left.append(stage)
        else:
            out.add(stage.name)
    return left


def shared_source() -> Source:
    """This work tree's commit, as other machines can have it, and what a run changes in it.

    Raises:
        UsageError: they cannot; the message says why, and what to do.
    """
    changed = work_tree_changes.changed()
    if here_alone := [str(path) for path in changed if not work_tree_changes.travels(path)]:
        raise UsageError(
            "The work tree has changes that no other machine would see. Commit and push them:\n" + "\n".join(here_alone)
        )
    commit, repository = git("rev-parse", "HEAD"), git("remote", "get-url", "origin")
    if not repository:
        raise UsageError(
            "The machines of a cluster clone this repository from 'origin', and there is no such git remote."
        )
    git("fetch", "--quiet", "origin")
    if not git("for-each-ref", "--contains", commit, "refs/remotes/origin"):
        raise UsageError(f"Commit {commit[:10]} is not at {repository}, from where other machines take it. Push it.")
    _require_dvc_remote()
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    if tracking.startswith("sqlite"):
        raise UsageError(
            f"MLFLOW_TRACKING_URI is {tracking}, a file that other machines would each have for themselves. "
            "Set it to a tracking server's address; 'lectern up' starts one."
        )
    return Source(repository, commit, without_user(tracking), work_tree_changes.read(changed))


def _require_dvc_remote() -> None:
    """
    Raises:
        UsageError: the committed DVC configuration names no remote, or one that is elsewhere in another work tree.
    """
    # Not as `dvc config` says it, who makes paths absolute, and adds what is in config.local.
    committed = configparser.ConfigParser(interpolation=None)
    committed.read(".dvc/config", encoding="utf-8")
    name = committed.get("core", "remote", fallback="")
    if not name:
        raise UsageError(
            "Machines share what the stages make by a DVC remote, and .dvc/config names none. Add one that all of them "
            "reach, 'dvc remote add --default shared s3://BUCKET/PATH' say, commit .dvc/config and push it."
        )
    url = committed.get(f"'remote \"{name}\"'", "url", fallback="")
    if "://" not in url and not Path(url).is_absolute():
        raise UsageError(
            f"The DVC remote '{name}' is {url}, which leads elsewhere from another machine's work tree. "
            "Write an absolute path on a disk that all of them share, or a bucket."
        )


@contextmanager
def connected() -> Iterator[tuple[RayTaskRunner, Machines]]:
    """A task runner on the cluster, and what the cluster has.

    Raises:
        UsageError: Ray is not installed, no cluster answers, or other machines could not reach our servers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    require_extra("ray", user=f"{ADDRESS}={address()}")
    import ray
    from prefect_ray.task_runners import RayTaskRunner

    # The flow's own code travels, so that all machines run the same; that of the stages comes with the commit.
    code = [str(Path(package.__file__).parent) for package in (flows, pipeline)]
    try:
        # Ray's own search, by the runner, would start a cluster of its own where it finds none.
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
    """
    Raises:
        UsageError: there are `others`, and the Prefect or the MLflow server listens to this machine alone.
    """
    addresses = {"PREFECT_API_URL": configured_url() or "", "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    for name, url in addresses.items():
        if others and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1"):
            raise UsageError(
                f"{name} is {url or 'not set'}, which the other machines of the cluster cannot reach. "
                "Start that server on an address that they can, and set the variable to it."
            )


def _run_there(
    stages: Sequence[Stage],
    source: Source,
    runner: RayTaskRunner,
    machines: Machines,
    stop_if_cancelled: Callable[[], None],
) -> dict[str, State]:
    """How each of `stages` ended: one that depends on a failed one has not begun."""
    import ray
    from prefect_ray.context import remote_options

    futures: dict[str, PrefectRayFuture[None]] = {}
    try:
        for stage in stages:
            upstream = [futures[name] for name in stage.upstream if name in futures]
            with remote_options(**machines.share(stage.slot, processes(stage.name)), max_retries=LOST_MACHINES):
                parameters = {"stage": stage, "source": source, "upstream": upstream}
                # Prefect gives a task whose upstream one failed no name but this.
                futures[stage.name] = runner.submit(run_stage_there.with_options(name=stage.name), parameters)
        pending = [future.wrapped_future for future in futures.values()]
        while pending:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=LOOK_AGAIN)
            stop_if_cancelled()
    finally:
        for future in futures.values():
            ray.cancel(future.wrapped_future)  # those that have ended take no notice
    for future in futures.values():
        future.wait()
    return {name: future.state for name, future in futures.items()}


def _give(to_run: Sequence[Stage]) -> None:
    """Pushes what is up to date here, all but `to_run`: it need not be made again there."""
    names = {stage.name for stage in to_run}
    fresh = [stage.name for stage in read_plan(Path.cwd()).stages if stage.restorable and stage.name not in names]
    _run([*DVC, "push", "--quiet"])
    _run(sharing(fresh))


def _run(command: Sequence[str]) -> None:
    """Runs it in this work tree and logs what it says.

    Raises:
        TemporaryFailure: it failed, for what it exchanges with the DVC remote.
    """
    with Child(command, env=environment()) as child:
        code, output = follow(child)
    if code:
        raise TemporaryFailure(
            f"'{' '.join(command)}' ended with exit code {code}. Is the DVC remote there?\n{last_lines(output)}"
        )
