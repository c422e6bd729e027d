"""A run with parameters of its own, in a copy of the project: the user's files stay as they are.

The copy holds what Git would commit, with changes that are not committed yet, and the outputs that `dvc.lock` names. It
is a clone that shares Git's objects, DVC's cache and the tracking database with the project, so its commit, its `git
status` and its results are the same as in the project.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException

from flows.graph.dvc_internals import open_repo
from pipeline.errors import UsageError
from pipeline.experiments import PROJECT_OF_COPY, in_main_project, share_state
from pipeline.files import folder_aside, make_folder, write_text
from pipeline.paths import CHECKPOINTS, PARAMS, REPORTS, RUN_COPIES, RUN_REPORTS, STATE
from pipeline.redaction import hide_passwords
from pipeline.settings import hint_at_catalogue, read_params, train_settings

_CLONE = "project"
_TRACKING = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class RunParameters:
    """The parameters of one run. An empty one takes its value from `params.yaml`."""

    models: Sequence[str] = ()
    epochs: int | None = None
    workbook: str | None = None

    def __bool__(self) -> bool:
        return bool(self.models or self.epochs or self.workbook)

    def name(self) -> str:
        """Return a name for the run's folders, the same for the same parameters: an interrupted run resumes there."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


@contextmanager
def copy_of_project(run: RunParameters) -> Iterator[Path]:
    """Work in a copy of the project whose `params.yaml` has the parameters of `run`; yield the folder of its reports.

    The working directory and the environment of this process are those of the copy during the block, because stages and
    settings are read relative to them. Afterwards the copy is removed, except for checkpoints of interrupted trainings,
    and its reports are in the yielded folder.

    Raises:
        UsageError: the workbook or a model does not exist, or the project cannot be copied.
        WorkbookRejected: the workbook has errors.
    """
    project, reports = Path.cwd(), RUN_REPORTS / run.name()
    params = with_parameters(read_params(), run)
    workbook = run.workbook and (run.workbook if "://" in run.workbook else str(Path(run.workbook).resolve()))
    home = (RUN_COPIES / run.name()).absolute()
    _remove_copy(home)
    try:
        with chdir(_copy_project(home)), _environment_of_copy(project):
            share_state()
            if workbook:
                from flows.graph.workbook import bring_in  # imports pandas, which other runs do not need

                params["ingest"] = {**(params.get("ingest") or {}), "workbook": bring_in(workbook).as_posix()}
            write_text(PARAMS, yaml.safe_dump(params, sort_keys=False, allow_unicode=True), durable=False)
            _check_out_outputs()
            _link_ignored_inputs(params, project)
            try:
                yield reports
            finally:
                if REPORTS.is_dir():
                    with folder_aside(project / reports, durable=False) as target:
                        # By content only: the files may be read-only links into DVC's cache.
                        shutil.copytree(REPORTS, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
    finally:
        _remove_copy(home)


def remove_old_copies() -> None:
    """Remove the copies of runs that were killed, except for the checkpoints from which their trainings resume."""
    for home in RUN_COPIES.glob("*"):
        _remove_copy(home)


def with_parameters(params: Mapping[str, Any], run: RunParameters) -> dict[str, Any]:
    """Return `params` with the models and epochs of `run`. A model that is used without training stays so.

    Raises:
        UsageError: params.yaml has no such model.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(params))
    known, contestants = changed.get("models") or {}, list(run.models or changed.get("contestants") or ())
    if unknown := {*contestants} - known.keys():
        missing = sorted(map(str, unknown))
        raise UsageError(
            f"{PARAMS} has no model {', '.join(missing)}; it has {', '.join(known)}.{hint_at_catalogue(missing)}"
        )
    changed["contestants"] = contestants
    if run.epochs:
        for name in contestants:
            if train_settings(changed, name).get("epochs") != 0:
                entry = known[name] or {}
                # A new mapping: several models may share one through a YAML anchor.
                known[name] = {**entry, "train": {**(entry.get("train") or {}), "epochs": run.epochs}}
    return changed


def _copy_project(home: Path) -> Path:
    """Copy the project in the working directory into `home`; return its folder there.

    Raises:
        UsageError: Git or DVC cannot read the project.
    """
    clone, checkpoints = home / _CLONE, home / CHECKPOINTS.name
    make_folder(checkpoints)
    prefix = _clone_repository(clone)
    folder = clone / prefix
    for name in _files(clone):
        source, target = Path(name), folder / name
        if source.is_symlink() or source.is_file():  # not a file that the user has deleted, nor a nested repository
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target, follow_symlinks=False)
            shutil.copymode(source, target, follow_symlinks=False)
    _git("-C", str(clone), "reset", "--quiet")  # then `git status` shows the same as in the project
    make_folder(folder / STATE)
    (folder / CHECKPOINTS).symlink_to(checkpoints)
    _share_cache(folder)
    return folder


def _clone_repository(clone: Path) -> Path:
    """Clone the repository without its files, sharing Git's objects; return the project's path in the clone."""
    top = _git("rev-parse", "--show-toplevel", check=False)
    if not top:
        _git("init", "--quiet", str(clone))
        return Path()
    _git("clone", "--quiet", "--shared", "--no-checkout", top, str(clone))
    if origin := _git("remote", "get-url", "origin", check=False):
        _git("-C", str(clone), "remote", "set-url", "origin", origin)
    return Path(_git("rev-parse", "--show-prefix"))


def _files(clone: Path) -> list[str]:
    """Return the files of the project that Git tracks or would add."""
    listing = ("--exclude-standard", "-z", "--", ".", f":!{STATE}")
    # With the clone's Git folder: a project that is not in a Git repository has none.
    others = _git("--git-dir", str(clone / ".git"), "--work-tree", ".", "ls-files", "--others", *listing)
    tracked = _git("ls-files", "--cached", *listing, check=False)
    return sorted({name for name in f"{others}\0{tracked}".split("\0") if name})


def _share_cache(folder: Path) -> None:
    """Let the project's copy in `folder` use its DVC cache, and copy the outputs that are not in the cache."""
    with open_repo(Path.cwd(), wait_for_lock=True) as project:
        local_settings = Path(project.dvc_dir, "config.local")
        if local_settings.exists():  # such as the address of a remote
            shutil.copy(local_settings, folder / ".dvc")
        cache = project.cache.local_cache_dir
        uncached = [Path(out.fs_path) for out in project.index.outs if not out.use_cache and out.protocol == "local"]
    with open_repo(folder) as repo, repo.config.edit("local") as settings:
        settings.setdefault("cache", {})["dir"] = cache
    for path in uncached:
        if path.is_file():
            target = folder / path.relative_to(Path.cwd())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _check_out_outputs() -> None:
    """Bring the outputs of the stages in the working directory from DVC's cache, only those of the run's models.

    Raises:
        UsageError: DVC cannot read the project.
    """
    try:
        with open_repo(Path.cwd()) as repo:
            repo.checkout(force=True, allow_missing=True)
    except DvcException as error:
        raise UsageError(f"DVC cannot copy the outputs of the stages for this run: {error}") from error


def _link_ignored_inputs(params: object, project: Path) -> None:
    """Link files and folders that params.yaml names by a relative path and Git ignores, such as a checkpoint."""
    if isinstance(params, Mapping):
        params = list(params.values())
    if isinstance(params, list):
        for each in params:
            _link_ignored_inputs(each, project)
    elif isinstance(params, str):
        target = Path(params)
        with suppress(OSError):  # a text that is no path
            if (project / target).exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(project / target)


@contextmanager
def _environment_of_copy(project: Path) -> Iterator[None]:
    """Have this process and its children use the tracking database and the state of the project."""
    before = {name: os.environ.get(name) for name in (PROJECT_OF_COPY, _TRACKING)}
    os.environ[PROJECT_OF_COPY] = str(project)
    os.environ[_TRACKING] = in_main_project(os.environ[_TRACKING])
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _remove_copy(home: Path) -> None:
    """Remove what is in `home`, except for checkpoints of interrupted trainings."""
    for path in home.glob("*"):
        if path.name != CHECKPOINTS.name:
            # Renamed first: a stage of a killed run may take a moment to end, and may still write here.
            shutil.rmtree(path.rename(home / f"removed-{uuid.uuid4().hex}"), ignore_errors=True)
    for folder in (home / CHECKPOINTS.name, home):
        with suppress(OSError):  # missing, or not empty
            folder.rmdir()


def _git(*words: str, check: bool = True) -> str:
    """Return the output of Git; an empty text if it fails and `check` is False.

    Raises:
        UsageError: Git is not installed, or it fails and `check` is True.
    """
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=False)
    except OSError as error:
        raise UsageError(f"A run with parameters of its own needs Git, to copy the project: {error}") from None
    if done.returncode and check:
        raise UsageError(
            f"Git cannot copy the project for this run: {hide_passwords(os.fsdecode(done.stderr).strip())}"
        )
    return os.fsdecode(done.stdout).rstrip("\n") if not done.returncode else ""  # file names may be any bytes
