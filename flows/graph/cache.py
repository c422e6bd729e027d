"""DVC's cache: what it keeps, and what the project names.

With graph.py and mend.py, the one place that knows DVC's internals.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.scm import NoSCM
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HASH_DIR_SUFFIX, HashInfo
from dvc_data.hashfile.tree import Tree
from scmrepo.exceptions import SCMError

from flows.graph.plan import Busy
from flows.graph.repair import mend
from pipeline.errors import TemporaryFailure, UsageError
from pipeline.maintenance.cache_objects import Cache, CachedRun, unneeded
from pipeline.maintenance.removable import Removable, size
from pipeline.registry.lineage import md5


@contextmanager
def idle_repo(root: Path) -> Iterator[Repo]:
    """The DVC project at `root`, of which no stage runs, and which no other DVC process changes during the block.

    Raises:
        Busy: a stage is running.
        UsageError: DVC cannot read the project; its own words say why.
    """
    with _open(root, wait_for_lock=True) as repo, lock_repo(repo):
        mend(repo)
        try:
            repo.status(check_updates=False)  # which asks for what a stage at work holds
        except LockError as error:
            raise Busy(str(error)) from error
        except DvcException as error:
            raise UsageError(f"DVC cannot read the project: {error}") from error
        yield repo


def _open(root: Path, *, wait_for_lock: bool = False) -> Repo:
    try:
        return Repo(str(root), _wait_for_lock=wait_for_lock)
    except DvcException as error:
        raise UsageError(f"DVC cannot read the project: {error}") from error


@contextmanager
def shelves(root: Path) -> Iterator[Callable[[str], list[str]]]:
    """Yields what names, for a hash, the place where DVC keeps that file or folder whole: its cache, else its remote.

    What is in the cache is read, since a disk may have damaged it; the remote is asked for what the cache lacks.

    Raises:
        UsageError: DVC cannot read the project at `root`.
        TemporaryFailure: the remote does not answer.
    """
    repo = _open(root)
    remote = repo.config["core"].get("remote")

    def places(digest: str) -> list[str]:
        if _holds(repo.cache.local, digest, _is_sound):
            return ["DVC's cache"]
        return [f"DVC's remote '{remote}'"] if remote and _remote_holds(repo, digest) else []

    with repo:
        yield places


def _remote_holds(repo: Repo, digest: str) -> bool:
    try:
        return _holds(repo.cloud.get_remote_odb(), digest, HashFileDB.exists)
    except Exception as error:  # each kind of storage has errors of its own
        raise TemporaryFailure(
            f"DVC's remote does not answer as it should: {error}\n`dvc remote list` names it."
        ) from error


def _holds(odb: HashFileDB, digest: str, has: Callable[[HashFileDB, str], bool]) -> bool:
    if not has(odb, digest):
        return False
    return not digest.endswith(HASH_DIR_SUFFIX) or all(has(odb, file) for file in _files(odb, digest))


def _is_sound(odb: HashFileDB, digest: str) -> bool:
    """Whether the local `odb` has what hashes to `digest`; DVC's own check would remove what does not."""
    path = Path(odb.oid_to_path(digest))
    return path.is_file() and md5(path) == digest.removesuffix(HASH_DIR_SUFFIX)


def cache_piles(
    repo: Repo, *, versions: Set[str], commits: Set[str], recent: Set[str], before: float
) -> list[Removable]:
    """What is to go of the cache; nothing where it is not this project's alone.

    Args:
        versions: hashes that registered versions name.
        commits: that they name.
        recent: hashes that MLflow runs name which stay.
        before: seconds since 1970.
    """
    if not Path(repo.cache.local.path).is_relative_to(repo.dvc_dir):
        return []
    projects = named_by_project(repo, commits)
    going = unneeded(read_cache(repo), versions=versions, projects=projects | recent, before=before)
    results = [run.path for run in going.runs]
    # Folders first: of a folder that is there, DVC takes it that its files are there too.
    digests = sorted(going.objects, key=lambda digest: not digest.endswith(HASH_DIR_SUFFIX))
    objects = [Path(repo.cache.local.oid_to_path(digest)) for digest in digests]
    why = "of no registered version, commit or recent run"
    return [
        Removable("results of stages in DVC's cache", why, len(results), size(results), lambda: _forget(results)),
        Removable("files in DVC's cache", why, len(objects), size(objects), lambda: _unlink(objects)),
    ]


def read_cache(repo: Repo) -> Cache:
    odb = repo.cache.local
    objects = {digest: Path(odb.oid_to_path(digest)).stat().st_mtime for digest in odb.all()}
    folders = {digest: _files(odb, digest) for digest in objects if digest.endswith(HASH_DIR_SUFFIX)}
    entries = Path(repo.stage_cache.cache_dir).glob("*/*/*")
    return Cache(objects, folders, tuple(map(_cached_run, entries)))


def named_by_project(repo: Repo, commits: Set[str]) -> frozenset[str]:
    """The hashes of outputs that the work tree, a branch, a tag, an experiment or one of `commits` names."""
    lock = Path(repo.root_dir, "dvc.lock")
    # All of it, stages of models too that params.yaml has switched off: they may be switched on again.
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.exists() else {}
    found = {digest for stage in stages.values() for digest in _outs(stage)}
    found |= {out.hash_info.value for out in repo.index.outs if out.hash_info}
    if isinstance(repo.scm, NoSCM):
        return frozenset(found)
    revisions = [commit for commit in sorted(commits) if _is_known(repo, commit)]
    for _ in repo.brancher(revs=revisions, all_branches=True, all_tags=True, all_experiments=True, workspace=False):
        found |= {out.hash_info.value for out in repo.index.outs if out.hash_info}
    return frozenset(found)


def _is_known(repo: Repo, commit: str) -> bool:
    """A version may have been registered from another clone."""
    try:
        return bool(repo.scm.resolve_rev(commit))
    except SCMError:
        return False


def _files(odb: HashFileDB, folder: str) -> frozenset[str]:
    return frozenset(info.value for _, _, info in Tree.load(odb, HashInfo(odb.hash_name, folder)))


def _cached_run(path: Path) -> CachedRun:
    entry = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return CachedRun(path, outs=_outs(entry), when=path.stat().st_mtime)


def _outs(stage: dict[str, Any]) -> frozenset[str]:
    """The hashes in what DVC has written down of a stage."""
    return frozenset(out["md5"] for out in stage.get("outs", []) if "md5" in out)


def _forget(entries: Sequence[Path]) -> None:
    going = set(entries)
    for folder in {entry.parent for entry in entries}:
        if going.issuperset(folder.iterdir()):
            # In one step, under a name that DVC never asks for: it breaks where it finds such a folder empty.
            shutil.rmtree(folder.rename(folder.with_suffix(f".{uuid.uuid4().hex}")))
        else:
            _unlink([entry for entry in entries if entry.parent == folder])


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
