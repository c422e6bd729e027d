"""Keep the trials of a search in a database, so that an interrupted search resumes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import DatabaseError

from pipeline import machine_errors
from pipeline.errors import Rejected, TemporaryFailure
from pipeline.files import make_folder
from pipeline.registry.outages import DAMAGED
from pipeline.search.settings import Pruning, SearchSettings
from pipeline.search.space import Space

log = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# Attributes of a trial.
REASON = "reason"  # of its failure
RUN_ID = "run_id"  # its MLflow run
CURRENT = "today"  # set if the trial has the settings that params.yaml had when the study started

Objective = Callable[[Trial, Path], float]
"""Runs a trial in a temporary folder and returns its value. Raises `optuna.TrialPruned` if the trial ends early, and
`TrialFailed` if its settings make it fail."""


class TrialFailed(Exception):
    """One trial cannot be trained because of its settings. Other trials may succeed."""


class StudyOnDisk:
    """Optuna's study in a folder, which several processes can share.

    A process holds a file lock while it runs a trial. The operating system releases the lock when the process dies, so
    a running trial without a locked file belongs to a killed process.

    Args:
        folder: The study's own folder.
        space: The searched settings.
        settings: The search settings.
    """

    def __init__(self, folder: Path, space: Space, settings: SearchSettings) -> None:
        self.space = space
        self.metric = settings.metric
        self._folder = folder
        self._seed = settings.seed
        make_folder(folder)
        self._lock = FileLock(folder / "study.lock")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Processes crash if they create the tables of a new database at the same time. Optuna creates the tables
        # outside its sessions, so SQLAlchemy's errors arrive here unwrapped.
        with self._lock, database_errors_explained(folder, DatabaseError):
            self._study = optuna.create_study(
                storage=f"sqlite:///{folder / 'study.db'}",
                study_name=folder.name,
                direction=settings.direction,
                pruner=_pruner(settings.pruning),
                load_if_exists=True,
            )

    @property
    def name(self) -> str:
        """Return the study's name, which contains the model's."""
        return self._study.study_name

    @property
    def minimises(self) -> bool:
        """Return whether lower values are better."""
        return self._study.direction == StudyDirection.MINIMIZE

    @property
    def run_id(self) -> str | None:
        """Return the id of the search's MLflow run, or None before the first trial."""
        return self._study.user_attrs.get(RUN_ID)

    @run_id.setter
    def run_id(self, run_id: str) -> None:
        self._study.set_user_attr(RUN_ID, run_id)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in the order of their numbers."""
        return self._study.get_trials()

    def best(self) -> FrozenTrial:
        """Return the best complete trial. There must be at least one."""
        return self._study.best_trial

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that are complete or pruned."""
        return self._study.get_trials(states=FINISHED)

    def fail_killed_trials(self) -> list[FrozenTrial]:
        """Mark the trials of killed processes as failed, and return them."""
        with self._lock:
            running = self._study.get_trials(states=(TrialState.RUNNING,))
            killed = [trial for trial in running if not self._has_process(trial)]
            for trial in killed:
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                shutil.rmtree(self._folder_of(trial), ignore_errors=True)
        return killed

    def optimise(self, objective: Objective, wanted: int) -> None:
        """Run trials until enough of them are finished or running, or until `wanted` trials have failed here.

        Args:
            objective: Runs one trial.
            wanted: Number of finished and running trials of all processes to reach.
        """
        failed = 0
        while failed < wanted and (started := self._start(wanted)):
            failed += not self._run(*started, objective)

    def _start(self, wanted: int) -> tuple[Trial, FileLock] | None:
        """Sample a trial and lock it. Return None if enough trials are finished or running."""
        with self._lock:
            if len(self._study.get_trials(states=(*FINISHED, TrialState.RUNNING))) >= wanted:
                return None
            current = self.space.current_sample()
            if current and not self._has_tried_current():
                self._study.enqueue_trial(current, user_attrs={CURRENT: True})
            # With one seed for all trials, a resumed search would sample the first trials again.
            self._study.sampler = TPESampler(seed=self._seed + len(self._study.trials))
            trial = self._study.ask(self.space.distributions())
            lock = self._lock_of(trial)
            lock.acquire()
            return trial, lock

    def _has_tried_current(self) -> bool:
        """Return whether a trial has the settings of `params.yaml`. Interrupted trials do not count."""
        return any(CURRENT in trial.user_attrs and not _is_interrupted(trial) for trial in self._study.trials)

    def _run(self, trial: Trial, lock: FileLock, objective: Objective) -> bool:
        """Run a trial, and return whether it is complete or pruned."""
        value, state = None, TrialState.FAIL
        try:
            value, state = objective(trial, self._folder_of(trial)), TrialState.COMPLETE
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except TrialFailed as error:
            trial.set_user_attr(REASON, str(error))
            log.warning("trial %d failed: %s", trial.number, error)
        finally:
            self._study.tell(trial, value, state)
            shutil.rmtree(self._folder_of(trial), ignore_errors=True)
            lock.release()
        return state in FINISHED

    def _has_process(self, trial: FrozenTrial) -> bool:
        """Return whether a running process holds the trial's lock."""
        try:
            with self._lock_of(trial).acquire(blocking=False):
                return False
        except Timeout:
            return True

    def _lock_of(self, trial: Trial | FrozenTrial) -> FileLock:
        return FileLock(self._folder_of(trial) / "lock")

    def _folder_of(self, trial: Trial | FrozenTrial) -> Path:
        return self._folder / f"trial-{trial.number}"


@contextmanager
def database_errors_explained(folder: Path, *others: type[Exception]) -> Iterator[None]:
    """Turn errors of the study's database into our own errors, which distinguish it from MLflow's database.

    Args:
        folder: The study's folder.
        others: Exceptions to handle besides Optuna's.

    Raises:
        Rejected: The database is damaged.
        TemporaryFailure: The database is locked or otherwise unavailable.
    """
    try:
        yield
    except (StorageInternalError, *others) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", cause))
        if lacking := machine_errors.translate_error(error):
            raise lacking from error
        if DAMAGED.search(reason):
            raise Rejected(
                f"The search's database in {folder} is damaged: {reason}. Remove that folder and run the command again "
                "to start a new search."
            ) from error
        raise TemporaryFailure(
            f"The search's database in {folder} is not available: {reason}. Run the command again later to resume the "
            "search."
        ) from error


def _is_interrupted(trial: FrozenTrial) -> bool:
    """Return whether the trial failed for another reason than its settings."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def _pruner(pruning: Pruning | None) -> BasePruner:
    if pruning is None:
        return NopPruner()
    return MedianPruner(n_startup_trials=pruning.startup_trials, n_warmup_steps=pruning.after_epochs)
