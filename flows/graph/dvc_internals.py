"""The parts of DVC that have no public API, all in this file.

Checked against DVC 3.67, to which pyproject.toml pins the project. Before you move the pin, read these functions in the
new version, then change `CHECKED_AGAINST`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc_data.hashfile.hash_info import HashInfo

CHECKED_AGAINST = "3.67"


def open_repo(root: Path, *, wait_for_lock: bool = False) -> Repo:
    """Open the DVC project at `root`.

    Args:
        root: the project's folder.
        wait_for_lock: wait while another DVC process holds the project's lock, as `dvc --wait-for-lock` does.

    Raises:
        DvcException: DVC cannot read the project.
    """
    return Repo(str(root), _wait_for_lock=wait_for_lock)


def saved_outputs(repo: Repo, stage: PipelineStage) -> Iterator[set[HashInfo]]:
    """Save the last run of `stage` in the run cache; yield the hashes of its outputs, one set per storage."""
    cache = repo.stage_cache
    cache.save(stage)
    entry = cache._load(stage)
    # The run cache restores a stage this way. Outputs with `cache: false` are included.
    ran = cache._create_stage(entry, wdir=stage.wdir) if entry else stage
    yield from ran.get_used_objs().values()


def is_restorable(stage: PipelineStage) -> bool:
    """Return whether the run cache can restore `stage` in another work tree."""
    # As in dvc.stage.cache, which also asks for the hashes of dependencies that may not exist yet.
    return bool(stage.deps) and not stage.always_changed and not any(out.persist for out in stage.outs)
