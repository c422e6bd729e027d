"""One training in several processes, one a GPU."""

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

_LAUNCHER = "LECTERN_LAUNCHER"  # its process id, for the processes that it starts


def is_first_process() -> bool:
    """Whether this process is the one that writes and logs: the only one, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def is_one_of_several() -> bool:
    """Whether `torchrun`, `accelerate launch` or `in_several_processes` has started this process."""
    return "RANK" in os.environ


def processes() -> int:
    """How many share this training, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def end_with_launcher() -> None:
    """Kills this process once the one that started it is gone, however that ended: a training that goes on for nobody
    would write where the next one goes on from."""
    launcher = int(os.environ.get(_LAUNCHER, os.getppid()))

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):  # gone already
            psutil.Process(launcher).wait()
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, name="launcher", daemon=True).start()


def in_several_processes(count: int, *words: str) -> None:
    """Runs `python -m pipeline WORDS` in `count` processes of this machine that know of each other, as torchrun does.

    Raises:
        SystemExit: one of them failed, with its exit code; or this process is told to end, by SIGINT or SIGTERM.
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
            elastic_launch(config, sys.executable)("-m", "pipeline", *words)
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            raise SystemExit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode) from None
        except SignalException as told:
            raise SystemExit(128 + told.sigval) from None
