"""One training in several processes, one a GPU."""

from __future__ import annotations

import os
import sys
import tempfile
import uuid

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def is_first_process() -> bool:
    """Whether this process is the one that writes and logs: the only one, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def is_one_of_several() -> bool:
    """Whether `torchrun`, `accelerate launch` or `in_several_processes` has started this process."""
    return "RANK" in os.environ


def in_several_processes(count: int, *words: str) -> None:
    """Runs `python -m pipeline WORDS` in `count` processes of this machine that know of each other, as torchrun does.

    Raises:
        SystemExit: one of them failed; with its exit code.
    """
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
