"""The trials of a search on disk: what is done outlives whatever ends the process."""

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
REASON = "reason"
RUN_ID = "run_id"
TODAY = "today"

Objective = Callable[[Trial, Path], float]
"""A trial, and a folder that is its own while it runs, to its value. It raises `optuna.TrialPruned` when it ends early
as a bad one, and `TrialFailed` when it breaks and others need not."""


class TrialFailed(Exception):
    """One trial cannot be trained; the message says why."""


class StudyOnDisk:
    """Optuna's study in a folder of its own, at which several processes may work at once.

    A process holds a lock for as long as it runs a trial, and the system takes the lock from a process that dies: a
    running trial that nobody holds is lost.
    """

    def __init__(self, folder: Path, space: Space, settings: SearchSettings) -> None:
        self.space = space
        self.metric = settings.metric
        self._folder = folder
        self._seed = settings.seed
        make_folder(folder)
        self._lock = FileLock(folder / "study.lock")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Processes that meet on a fresh database make its tables at the same time, and crash; these are made beside
        # Optuna's own sessions.
        with self._lock, errors_of(folder, DatabaseError):
            self._study = optuna.create_study(
                storage=f"sqlite:///{folder / 'study.db'}",
                study_name=folder.name,
                direction=settings.direction,
                pruner=_pruner(settings.pruning),
                load_if_exists=True,
            )

    @property
    def name(self) -> str:
        return self._study.study_name

    @property
    def minimises(self) -> bool:
        return self._study.direction == StudyDirection.MINIMIZE

    @property
    def run_id(self) -> str | None:
        """Of the MLflow run above those of the trials, once there is one."""
        return self._study.user_attrs.get(RUN_ID)

    @run_id.setter
    def run_id(self, run_id: str) -> None:
        self._study.set_user_attr(RUN_ID, run_id)

    def trials(self) -> list[FrozenTrial]:
        return self._study.get_trials()

    def best(self) -> FrozenTrial:
        """Of the trials that are complete, one of which there is."""
        return self._study.best_trial

    def finished(self) -> list[FrozenTrial]:
        """The trials that were trained to their end or pruned."""
        return self._study.get_trials(states=FINISHED)

    def fail_lost(self) -> list[FrozenTrial]:
        """Marks as failed the trials whose process is gone, and returns them."""
        with self._lock:
            lost = [trial for trial in self._study.get_trials(states=(TrialState.RUNNING,)) if self._is_lost(trial)]
            for trial in lost:
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                shutil.rmtree(self._folder_of(trial), ignore_errors=True)
        return lost

    def optimise(self, objective: Objective, wanted: int) -> None:
        """Runs trials until `wanted` are finished or running, here or elsewhere, or as many have failed here."""
        failed = 0
        while failed < wanted and (begun := self._begin(wanted)):
            failed += not self._run(*begun, objective)

    def _begin(self, wanted: int) -> tuple[Trial, FileLock] | None:
        with self._lock:
            if len(self._study.get_trials(states=(*FINISHED, TrialState.RUNNING))) >= wanted:
                return None
            today = self.space.drawn_today()
            if today and not self._knows_today():
                self._study.enqueue_trial(today, user_attrs={TODAY: True})
            # A seed of its own for each trial: one that goes on must not draw anew what the one before it drew.
            self._study.sampler = TPESampler(seed=self._seed + len(self._study.trials))
            trial = self._study.ask(self.space.distributions())
            hold = self._hold(trial)
            hold.acquire()
            return trial, hold

    def _knows_today(self) -> bool:
        """Whether the settings that the study began with are a trial that has come, or may come, to an end of its own:
        one that was broken off says nothing of them."""
        return any(TODAY in trial.user_attrs and not _broken_off(trial) for trial in self._study.trials)

    def _run(self, trial: Trial, hold: FileLock, objective: Objective) -> bool:
        """Whether the trial has finished."""
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
            hold.release()
        return state in FINISHED

    def _is_lost(self, trial: FrozenTrial) -> bool:
        try:
            with self._hold(trial).acquire(blocking=False):
                return True
        except Timeout:
            return False

    def _hold(self, trial: Trial | FrozenTrial) -> FileLock:
        return FileLock(self._folder_of(trial) / "lock")

    def _folder_of(self, trial: Trial | FrozenTrial) -> Path:
        return self._folder / f"trial-{trial.number}"


@contextmanager
def errors_of(folder: Path, *others: type[Exception]) -> Iterator[None]:
    """Makes of Optuna's word that the database of the study in `folder` broke, and of `others`, an error of ours: who
    knows no better takes it for MLflow's.

    Raises:
        Rejected: the database is damaged.
        TemporaryFailure: it cannot be used now.
    """
    try:
        yield
    except (StorageInternalError, *others) as error:
        cause = error.__cause__ or error
        why = str(getattr(cause, "orig", cause))
        if lacking := machine_errors.translate_error(error):
            raise lacking from error
        if DAMAGED.search(why):
            raise Rejected(
                f"What the search has come to, {folder}, is damaged: {why}. Remove that folder; the search then begins "
                "anew."
            ) from error
        raise TemporaryFailure(
            f"The search's database in {folder} cannot be used: {why}. The same command goes on once that has passed."
        ) from error


def _broken_off(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def _pruner(pruning: Pruning | None) -> BasePruner:
    if pruning is None:
        return NopPruner()
    return MedianPruner(n_startup_trials=pruning.startup_trials, n_warmup_steps=pruning.after_epochs)
