"""A stage on a machine of a cluster: the commit in a work tree there, inputs and outputs by the DVC remote."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from flows.cluster import work_tree_changes
from flows.cluster.work_tree_changes import Changes
from flows.execution.child_process import Child
from flows.execution.stage import StageBroke, environment, failure, follow, stage_task
from flows.graph import push
from flows.graph.plan import Stage
from pipeline.files import make_folder, make_private_folder
from pipeline.redaction import hide_passwords, without_user

DVC = [sys.executable, "-m", "dvc", "--wait-for-lock"]


@dataclass(frozen=True)
class Source:
    """What every machine works on: a commit of a repository that it can clone, and the tracking server it logs to.

    tracking: the server's address without a user: each machine has credentials of its own.
    changes: what this run changes in the commit's files.
    """

    repository: str = field(repr=False)  # git's address may hold a password
    commit: str
    tracking: str
    work_tree_changes: Changes = field(default_factory=dict, repr=False)


@stage_task()
def run_stage_there(stage: Stage, source: Source, upstream: Sequence[None]) -> None:
    """Brings `stage` up to date in a work tree of this machine, and pushes its outputs and its entry of the run cache.

    `upstream` holds what the tasks before it returned, which is nothing: Ray starts a task once its arguments are
    there, and until then keeps no processor or accelerator for it.

    Raises:
        StageRejected, StageBroke: it failed; the message ends with what it printed, as `failure` tells.
    """
    env = environment() | {"MLFLOW_TRACKING_URI": tracking_from_here(source)}
    with work_tree(source) as tree:
        # What stands upstream is restored from the run cache, where whoever ran it has put it.
        with Child([*DVC, "repro", "--pull", stage.name], env=env, cwd=tree) as child:
            code, output = follow(child)
        if code:
            raise failure(stage.name, code, output)
        require(sharing([stage.name]), env, tree)


def tracking_from_here(source: Source) -> str:
    """The tracking server's address; with a user, where this machine's environment has one for that server."""
    own = os.environ.get("MLFLOW_TRACKING_URI", "")
    return own if without_user(own) == source.tracking else source.tracking


def sharing(stages: Sequence[str]) -> list[str]:
    """The command that gives what `stages` made to the DVC remote."""
    return [sys.executable, "-P", push.__file__, *stages]


@contextmanager
def work_tree(source: Source) -> Iterator[Path]:
    """A clone at the commit of `source`, with its changes, ours for the block.

    It stays for the next stage, with what git ignores there.

    Raises:
        StageBroke: git cannot clone the repository, or has no such commit.
    """
    home = folder(source.repository)
    make_folder(home)
    make_private_folder(home)  # a clone keeps the repository's address, in which there may be a token
    with _first_free(home) as number:
        tree = home / str(number)
        if not (tree / ".git").exists():
            _clone(source.repository, tree)
        _check_out(source, tree)
        work_tree_changes.write(source.changes, tree)
        # One for all work trees of the machine, which DVC allows: a file is fetched and kept once.
        cache = str(home / "cache")
        require([*DVC, "config", "--local", "cache.dir", cache], environment(), tree)
        yield tree


def folder(repository: str) -> Path:
    """Where this machine has its work trees of `repository`: below `LECTERN_WORK_TREES`, or the user's cache folder."""
    base = os.environ.get("LECTERN_WORK_TREES") or platformdirs.user_cache_path("lectern") / "work-trees"
    return Path(base).absolute() / hashlib.sha256(repository.encode()).hexdigest()[:16]


@contextmanager
def _first_free(home: Path) -> Iterator[int]:
    """The number of the first work tree that no other stage is at work in, and is not until the block ends."""
    for number in itertools.count():
        lock = FileLock(home / f"{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield number
        finally:
            lock.release()
        return


def _clone(repository: str, tree: Path) -> None:
    # Aside first: a clone that was broken off is none.
    aside = tree.with_suffix(".new")
    shutil.rmtree(aside, ignore_errors=True)
    require(["git", "clone", "--quiet", "--no-checkout", repository, str(aside)], environment(), tree.parent)
    aside.rename(tree)


def _check_out(source: Source, tree: Path) -> None:
    env = environment()
    require(["git", "fetch", "--quiet", "--tags", "origin"], env, tree)
    require(["git", "checkout", "--quiet", "--force", "--detach", source.commit], env, tree)
    # Such as a dvc.lock of another commit. What is ignored stays: outputs, and checkpoints to resume from.
    require(["git", "clean", "--quiet", "--force", "-d"], env, tree)


def require(command: Sequence[str], env: dict[str, str], cwd: Path) -> None:
    """
    Raises:
        StageBroke: `command` failed; with all that it printed.
    """
    with Child(command, env=env, cwd=cwd) as child:
        output = list(filter(str.strip, child.lines()))
        code = child.wait()
    if code:
        said = "\n".join(f"  {line}" for line in output)
        raise StageBroke(hide_passwords(f"'{' '.join(command)}' ended with exit code {code} in {cwd}:\n{said}"))
