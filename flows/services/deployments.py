"""Deploy `prefect.yaml` with Prefect's own command, and run its flows with a worker on this machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from flows.services.service import Service
from pipeline.errors import UsageError
from pipeline.paths import STATE
from pipeline.redaction import hide_passwords

POOL = "lectern"
"""Work pool of the deployments that run on this machine."""

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Deployment:
    """A flow that Prefect's server can start."""

    name: str
    pool: str
    schedules: tuple[str, ...]

    @property
    def schedule(self) -> str:
        return "; ".join(self.schedules) or "on request"


def deploy() -> list[Deployment]:
    """Deploy `prefect.yaml` to the configured Prefect server, with `prefect deploy --all`.

    Drop scheduled runs that no worker started in time: after a day without a worker, a day's hourly runs would all
    start at once.

    Returns:
        The deployments, as the server has them.

    Raises:
        UsageError: `prefect.yaml` is wrong, or deploys to a work pool that has no worker here.
    """
    with get_client(sync_client=True) as client:
        _create_pool(client)
        return [_read(client, identifier) for identifier in _deploy_all()]


def worker_service() -> Service:
    """A worker that runs the deployments of the pool `lectern`, each in the folder that it was deployed from."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", ProcessWorker.type]
    return Service(
        "The worker",
        [*command, "--name", platform.node()],
        log=STATE / "logs" / "worker.log",
        env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )


def _create_pool(client: SyncPrefectClient) -> None:
    template = ProcessWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))


def _deploy_all() -> list[UUID]:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        env=os.environ | {"PWD": str(Path.cwd())},  # prefect.yaml names the project's folder by it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        output = hide_passwords(done.stdout.strip())
        raise UsageError(
            f"prefect.yaml cannot be deployed. `prefect deploy --all` reports:\n{output}\n"
            f"Correct prefect.yaml. `lectern up` runs a worker for the work pool {POOL!r} only. A deployment to "
            "another pool needs a worker that you start on the machine that runs it: see docs/cluster.md."
        )
    return [UUID(found) for found in dict.fromkeys(_ID.findall(done.stdout))]  # the command has no other output for it


def _read(client: SyncPrefectClient, identifier: UUID) -> Deployment:
    found = client.read_deployment(identifier)
    name = f"{client.read_flow(found.flow_id).name}/{found.name}"
    pool = client.read_work_pool(found.work_pool_name or POOL)
    if pool.name != POOL or pool.type != ProcessWorker.type:
        raise UsageError(
            f"prefect.yaml deploys {name} to the work pool {pool.name!r} of type {pool.type}. `lectern up` runs no "
            f"worker for it. Give the deployment the line `<<: *process`, or use `prefect deploy --all` and start "
            f"`prefect worker start --pool {pool.name} --type {pool.type}` on the machine that runs it."
        )
    if not found.paused:
        client.pause_deployment(identifier)  # which drops the runs that nobody has started
        client.resume_deployment(identifier)
    return Deployment(name, pool.name, tuple(_describe(each) for each in found.schedules if each.active))


def _describe(active: DeploymentSchedule) -> str:
    match active.schedule:
        case IntervalSchedule(interval=interval):
            return f"every {interval}"
        case CronSchedule(cron=rule, timezone=timezone) | RRuleSchedule(rrule=rule, timezone=timezone):
            return f"{rule}, {timezone or 'UTC'}"
    return "never"
