"""A stage on a machine of a cluster, in a clone of the project; inputs and outputs come through the DVC remote."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from flows.cluster import work_tree_changes
from flows.cluster.work_tree_changes import Changes
from flows.execution.child_process import Child
from flows.execution.stage import StageBroke, environment, failure, follow, stage_report, stage_task
from flows.graph.command_line import dvc_command
from flows.graph.plan import Stage
from flows.graph.push import push_command, push_environment
from pipeline.command import STAGE_REPORT, StageReport
from pipeline.files import make_folder, make_private_folder
from pipeline.redaction import hide_passwords, without_user


@dataclass(frozen=True)
class Source:
    """The state of the project that every machine works on.

    Attributes:
        repository: the address that each machine clones.
        commit: the commit to check out.
        tracking: the address of the tracking server, without a user: each machine has credentials of its own.
        changes: the files that this run changes in the commit.
    """

    repository: str = field(repr=False)  # git's address may hold a password
    commit: str
    tracking: str
    changes: Changes = field(default_factory=dict, repr=False)


@stage_task()
def run_stage_there(stage: Stage, source: Source, upstream: Sequence[None]) -> None:
    """Bring `stage` up to date in a work tree of this machine; push its outputs and its entry of the run cache.

    Args:
        stage: the stage.
        source: the state of the project.
        upstream: the results of the tasks before it, which are None. Ray starts a task once its arguments are there,
            and reserves no processor or accelerator before.

    Raises:
        StageRejected, StageBroke: the stage failed; the message explains why.
    """
    env = environment() | {"MLFLOW_TRACKING_URI": tracking_from_here(source)}
    with work_tree(source) as tree, stage_report() as report:
        # --pull: DVC restores upstream stages from the run cache, to which other machines pushed them.
        command = dvc_command("repro", "--pull", stage.name)
        with Child(command, env=env | {STAGE_REPORT: str(report)}, cwd=tree) as child:
            code, output = follow(child)
        if code:
            raise failure(stage, output, StageReport.read(report), tree)
        require(push_command([stage.name]), env | push_environment(), tree)


def tracking_from_here(source: Source) -> str:
    """Return the tracking server's address, with the user that this machine's environment has for that server."""
    own = os.environ.get("MLFLOW_TRACKING_URI", "")
    return own if without_user(own) == source.tracking else source.tracking


@contextmanager
def work_tree(source: Source) -> Iterator[Path]:
    """Yield a clone at the commit of `source`, with its changes; no other stage uses it during the block.

    The clone stays for the next stage, with the files that Git ignores.

    Raises:
        StageBroke: Git cannot clone the repository, or it lacks the commit.
    """
    home = folder(source.repository)
    make_folder(home)
    make_private_folder(home)  # a clone keeps the repository's address, which may hold a token
    with _first_free(home) as number:
        tree = home / str(number)
        if not (tree / ".git").exists():
            _clone(source.repository, tree)
        _check_out(source, tree)
        work_tree_changes.write(source.changes, tree)
        # All work trees of the machine share one cache: each file is fetched and kept once.
        cache = str(home / "cache")
        require(dvc_command("config", "--local", "cache.dir", cache), environment(), tree)
        yield tree


def folder(repository: str) -> Path:
    """Return the folder of this machine's work trees of `repository`.

    It is below `LECTERN_WORK_TREES`, by default in the user's cache folder.
    """
    base = os.environ.get("LECTERN_WORK_TREES") or platformdirs.user_cache_path("lectern") / "work-trees"
    return Path(base).absolute() / hashlib.sha256(repository.encode()).hexdigest()[:16]


@contextmanager
def _first_free(home: Path) -> Iterator[int]:
    """Yield the number of the first work tree that no other stage uses; reserve it for the block."""
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
    # Under another name first: an interrupted clone is not usable.
    aside = tree.with_suffix(".new")
    shutil.rmtree(aside, ignore_errors=True)
    require(["git", "clone", "--quiet", "--no-checkout", repository, str(aside)], environment(), tree.parent)
    aside.rename(tree)


def _check_out(source: Source, tree: Path) -> None:
    env = environment()
    require(["git", "fetch", "--quiet", "--tags", "origin"], env, tree)
    require(["git", "checkout", "--quiet", "--force", "--detach", source.commit], env, tree)
    # Removes files such as the dvc.lock of another commit. Ignored files stay: outputs, and checkpoints to resume from.
    require(["git", "clean", "--quiet", "--force", "-d"], env, tree)


def require(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
    """Run `command` in the folder `cwd`.

    Raises:
        StageBroke: the command failed; the message has all its output.
    """
    with Child(command, env=env, cwd=cwd) as child:
        output = list(filter(str.strip, child.lines()))
        code = child.wait()
    if code:
        printed = "\n".join(f"  {line}" for line in output)
        raise StageBroke(hide_passwords(f"'{' '.join(command)}' failed with exit code {code} in {cwd}:\n{printed}"))
