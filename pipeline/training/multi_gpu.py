"""Run one training in several processes, one per GPU."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import uuid
from contextlib import suppress
from threading import Thread

import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

_LAUNCHER = "LECTERN_LAUNCHER"  # process id of the launcher, in the environment of the processes that it starts


def is_first_process() -> bool:
    """Return whether this process writes and logs: it is the only process, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def is_launched() -> bool:
    """Return whether `torchrun`, `accelerate launch` or `launch` has started this process."""
    return "RANK" in os.environ


def process_count() -> int:
    """Return the number of processes that share this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def exit_with_launcher() -> None:
    """Kill this process as soon as its launcher ends, for whatever reason.

    Otherwise it would continue to write checkpoints into the folder from which the next training resumes.
    """
    launcher = int(os.environ.get(_LAUNCHER, os.getppid()))

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):  # it has ended already
            psutil.Process(launcher).wait()
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, name="launcher", daemon=True).start()


def launch(count: int, *arguments: str) -> None:
    """Run `python -m pipeline ARGUMENTS` in `count` processes on this machine that form one group, as torchrun does.

    Raises:
        SystemExit: A process failed, with its exit code, or this process received SIGINT or SIGTERM.
    """
    os.environ[_LAUNCHER] = str(os.getpid())
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "pipeline", *arguments)
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            raise SystemExit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode) from None
        except SignalException as signalled:
            raise SystemExit(128 + signalled.sigval) from None
