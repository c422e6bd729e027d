"""A toy DVC project: its graphs, its stages, and the runs of its flows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State

from flows.services.deployments import Deployment, deploy, worker_service
from tests.conftest import ROOT

MakeProject = Callable[[str], Path]
"""Makes a project with the given dvc.yaml, and makes it the working directory."""


TWO_STAGES = """
    stages:
      one:
        cmd: echo one >> ran.txt && cp source.txt one.txt
        deps: [source.txt]
        outs: [one.txt]
      two:
        cmd: echo two >> ran.txt && cp one.txt two.txt
        deps: [one.txt]
        outs: [two.txt]
"""
"""A dvc.yaml; each stage adds its name to ran.txt."""

REFUSE = """
import sys
from pipeline.command import run_command
from pipeline.errors import Rejected, UsageError

def refuse():
    raise {"1": Rejected, "2": UsageError}[sys.argv[1]](sys.argv[2])

run_command(refuse)
"""
"""The script refuse.py of every toy project: `python refuse.py 1 MESSAGE` rejects the data of a stage."""


SERVED = """
deployments:
  - name: served
    entrypoint: {entrypoint}
    work_pool: {{name: lectern, job_variables: {{working_dir: "{{{{ $PWD }}}}", command: python -m prefect.engine}}}}
    pull: []
"""
"""A prefect.yaml with one deployment, of the flow at that entrypoint."""


class PrefectServer(NamedTuple):
    url: str
    database: Path


def dvc(*words: str) -> str:
    """Run DVC and return its output."""
    return subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False).stdout


def wait_for(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited for {seconds} s"
        time.sleep(0.1)


@contextmanager
def serving() -> Iterator[list[Deployment]]:
    """Deploy the project's prefect.yaml, and run a worker for it during the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        deployments = deploy()
        worker = worker_service()
    with worker:
        yield deployments


def new_run(deployment: UUID, **parameters: object) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(deployment, parameters=parameters)


def read(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def state(run: FlowRun) -> State:
    return read(run.id).state
