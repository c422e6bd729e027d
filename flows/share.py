"""Gives what stages made to the DVC remote, so that the run cache restores it elsewhere. Run as a script in the project.

`dvc push --run-cache` leaves out the outputs with `cache: false`, such as metrics. Without them DVC would not restore the
stage, but run it again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dvc.repo import Repo
from dvc.stage import PipelineStage


def share(names: Sequence[str]) -> int:
    """Pushes the outputs of the stages named, and then the run cache. Returns how many files could not be pushed."""
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        failed = sum(_push_outputs(repo, repo.stage.load_one(name=name)) for name in names)
        # Last: whoever finds an entry of the run cache there shall find its outputs too.
        if not failed:
            repo.stage_cache.push(None)
    return failed


def _push_outputs(repo: Repo, stage: PipelineStage) -> int:
    # As the run cache itself restores it: a stage whose outputs are all to be had from the remote.
    entry = repo.stage_cache._load(stage)
    ran = repo.stage_cache._create_stage(entry, wdir=stage.wdir) if entry else stage
    return sum(len(repo.cloud.push(hashes).failed) for hashes in ran.get_used_objs().values())


if __name__ == "__main__":
    raise SystemExit(1 if share(sys.argv[1:]) else 0)
