"""Gives what stages made to the DVC remote, for the run cache to restore elsewhere. Run as a script in the project.

DVC by itself keeps no run of a stage with an output of `cache: false` unless that is a metric or plot, and
`dvc push --run-cache` pushes no such output. Without both DVC would not restore the stage elsewhere, but run it again.
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
    repo.stage_cache.save(stage)
    # As the run cache itself restores it: a stage whose outputs are all to be had from the remote.
    entry = repo.stage_cache._load(stage)
    ran = repo.stage_cache._create_stage(entry, wdir=stage.wdir) if entry else stage
    return sum(len(repo.cloud.push(hashes).failed) for hashes in ran.get_used_objs().values())


if __name__ == "__main__":
    raise SystemExit(1 if share(sys.argv[1:]) else 0)
