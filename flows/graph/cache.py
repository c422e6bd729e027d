"""DVC's cache: what it keeps, and what the project still refers to."""

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

from flows.graph.dvc_internals import open_repo
from flows.graph.plan import Busy
from flows.graph.repair import repair
from pipeline.errors import TemporaryFailure, UsageError
from pipeline.maintenance.cache_objects import Cache, CachedRun, unneeded
from pipeline.maintenance.removable import Removable, size
from pipeline.registry.lineage import md5


class IdleProject:
    """A DVC project of which no stage runs, and which no other DVC process changes."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo

    def external_cache(self) -> Path | None:
        """Return the folder of DVC's cache if it is outside the project."""
        cache = Path(self._repo.cache.local.path)
        return None if cache.is_relative_to(self._repo.root_dir) else cache

    def removable(self, *, versions: Set[str], commits: Set[str], recent: Set[str], before: float) -> list[Removable]:
        """Return the files of the cache that nothing needs; none if other projects may share the cache.

        Args:
            versions: hashes that registered versions refer to.
            commits: Git commits that registered versions refer to.
            recent: hashes that MLflow runs refer to, of the runs that stay.
            before: files that are newer stay; seconds since 1970.
        """
        local = self._repo.cache.local
        if not Path(local.path).is_relative_to(self._repo.dvc_dir):
            return []
        projects = _named_by_project(self._repo, commits)
        going = unneeded(_read_cache(self._repo), versions=versions, projects=projects | recent, before=before)
        results = [run.path for run in going.runs]
        # Folders first: DVC takes the presence of a folder's entry as proof that its files are present.
        digests = sorted(going.objects, key=lambda digest: not digest.endswith(HASH_DIR_SUFFIX))
        objects = [Path(local.oid_to_path(digest)) for digest in digests]
        why = "of no registered version, commit or recent run"
        return [
            Removable(
                "results of stages in DVC's cache", why, len(results), size(results), lambda: _forget_runs(results)
            ),
            Removable("files in DVC's cache", why, len(objects), size(objects), lambda: _unlink(objects)),
        ]


@contextmanager
def idle_project(root: Path) -> Iterator[IdleProject]:
    """Hold DVC's lock on the project at `root` for the block.

    Raises:
        Busy: a stage is running.
        UsageError: DVC cannot read the project; the message quotes DVC.
    """
    with _open(root, wait_for_lock=True) as repo, lock_repo(repo):
        repair(repo)
        try:
            repo.status(check_updates=False)  # fails if a running stage holds a file
        except LockError as error:
            raise Busy(str(error)) from error
        except DvcException as error:
            raise UsageError(f"DVC cannot read the project: {error}") from error
        yield IdleProject(repo)


def _open(root: Path, *, wait_for_lock: bool = False) -> Repo:
    try:
        return open_repo(root, wait_for_lock=wait_for_lock)
    except DvcException as error:
        raise UsageError(f"DVC cannot read the project: {error}") from error


@contextmanager
def storage_finder(root: Path) -> Iterator[Callable[[str], list[str]]]:
    """Yield a function that names the place where DVC keeps the file or folder of a hash: its cache, else its remote.

    The function reads what the cache holds, because a disk may have damaged it. It asks the remote for the rest.

    Raises:
        UsageError: DVC cannot read the project at `root`.
        TemporaryFailure: the remote does not answer.
    """
    repo = _open(root)
    remote = repo.config["core"].get("remote")

    def find(digest: str) -> list[str]:
        if _holds(repo.cache.local, digest, _is_intact):
            return ["DVC's cache"]
        return [f"DVC's remote '{remote}'"] if remote and _remote_holds(repo, digest) else []

    with repo:
        yield find


def _remote_holds(repo: Repo, digest: str) -> bool:
    try:
        return _holds(repo.cloud.get_remote_odb(), digest, HashFileDB.exists)
    except Exception as error:  # each kind of storage has exceptions of its own
        raise TemporaryFailure(
            f"DVC's remote failed: {error}\nCheck its address with `dvc remote list`, then try again."
        ) from error


def _holds(odb: HashFileDB, digest: str, has: Callable[[HashFileDB, str], bool]) -> bool:
    if not has(odb, digest):
        return False
    return not digest.endswith(HASH_DIR_SUFFIX) or all(has(odb, file) for file in _files(odb, digest))


def _is_intact(odb: HashFileDB, digest: str) -> bool:
    """Return whether the local `odb` holds content of this hash. DVC's own check would remove damaged content."""
    path = Path(odb.oid_to_path(digest))
    return path.is_file() and md5(path) == digest.removesuffix(HASH_DIR_SUFFIX)


def _read_cache(repo: Repo) -> Cache:
    odb = repo.cache.local
    objects = {digest: Path(odb.oid_to_path(digest)).stat().st_mtime for digest in odb.all()}
    folders = {digest: _files(odb, digest) for digest in objects if digest.endswith(HASH_DIR_SUFFIX)}
    entries = Path(repo.stage_cache.cache_dir).glob("*/*/*")
    return Cache(objects, folders, tuple(map(_cached_run, entries)))


def _named_by_project(repo: Repo, commits: Set[str]) -> frozenset[str]:
    """Return the hashes of outputs that the work tree, a branch, a tag, an experiment or one of `commits` names."""
    lock = Path(repo.root_dir, "dvc.lock")
    # All stages, also those of models that are switched off in params.yaml: a user may switch them on again.
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
    """Return whether this clone has `commit`; another clone may have registered the version."""
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
    """Return the hashes of outputs in a stage's entry in dvc.lock or in the run cache."""
    return frozenset(out["md5"] for out in stage.get("outs", []) if "md5" in out)


def _forget_runs(entries: Sequence[Path]) -> None:
    going = set(entries)
    for folder in {entry.parent for entry in entries}:
        if going.issuperset(folder.iterdir()):
            # Renamed first, to a name that DVC never reads: DVC fails on an empty folder here.
            shutil.rmtree(folder.rename(folder.with_suffix(f".{uuid.uuid4().hex}")))
        else:
            _unlink([entry for entry in entries if entry.parent == folder])


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
