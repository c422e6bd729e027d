"""Push the outputs of stages to the DVC remote, from which the run cache restores them on another machine.

Run as a script in the project. DVC itself saves no run of a stage with an output of `cache: false`, unless the output
is a metric or a plot, and `dvc push --run-cache` pushes no such output. Without both, another machine would run the
stage again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import flows
import pipeline
from flows.graph.dvc_internals import open_repo, saved_outputs


def push_command(stages: Sequence[str]) -> list[str]:
    """Return the command that pushes the outputs of `stages`; run it with the variables of `push_environment`."""
    # -P: a clone of the project holds packages of the same names.
    return [sys.executable, "-P", "-m", "flows.graph.push", *stages]


def push_environment() -> dict[str, str]:
    """Return the environment variable by which the command finds this code, wherever the cluster has put it."""
    folders = [str(Path(package.__file__ or "").parents[1]) for package in (flows, pipeline)]
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, [*folders, *before])))}


def push(stages: Sequence[str]) -> int:
    """Push the outputs of `stages` and then the run cache; return the number of files that failed."""
    with open_repo(Path.cwd(), wait_for_lock=True) as repo, repo.lock:
        failed = 0
        for name in stages:
            for hashes in saved_outputs(repo, repo.stage.load_one(name=name)):
                failed += len(repo.cloud.push(hashes).failed)
        # Last: an entry of the run cache must not appear in the remote before its outputs.
        if not failed:
            repo.stage_cache.push(None)
    return failed


if __name__ == "__main__":
    raise SystemExit(1 if push(sys.argv[1:]) else 0)
