"""One trial: a training as the train stage would do it, in an MLflow run of its own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
from accelerate.utils.memory import clear_device_cache
from mlflow import MlflowClient
from optuna.trial import Trial
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import Rejected, UsageError
from pipeline.machine_errors import lacks_memory
from pipeline.paths import TRAINING_SPLITS
from pipeline.registry.tracking import training_run
from pipeline.registry.training_log import LogToMlflow
from pipeline.search.space import Space
from pipeline.search.study import RUN_ID, TrialFailed
from pipeline.search.tables import short
from pipeline.training.prepare import prepare
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import Diverged, LearntNothing, Score, TooLittleMemory, fit

log = logging.getLogger(__name__)

STATE_TAG = "trial.state"


@dataclass(frozen=True)
class TrainTrial:
    """The objective of a search. Its value is the metric at the epoch that a training keeps: the one of least loss."""

    space: Space
    metric: str
    score: Score
    train: pd.DataFrame
    validation: pd.DataFrame
    client: MlflowClient
    tags: dict[str, str]  # of each run

    def __call__(self, trial: Trial, folder: Path) -> float:
        drawn = self.space.values(trial.params)
        log.info("trial %d: %s", trial.number, ", ".join(f"{knob} {short(value)}" for knob, value in drawn.items()))
        with training_run(
            f"{self.space.model} trial {trial.number}",
            params={**self.space.model_settings.model_dump(exclude={"train"}), **self.space.fixed, **drawn},
            tags={"trial": str(trial.number), **self.tags},
            splits=TRAINING_SPLITS,
            nested=True,
        ) as run_id:
            trial.set_user_attr(RUN_ID, run_id)
            pruner = _Prune(trial, self.metric)
            state = "failed"
            try:
                curves = self._fit(trial, folder, [LogToMlflow(self.client, run_id), pruner])
                state = "pruned" if pruner.pruned else "complete"
            finally:
                self.client.set_tag(run_id, STATE_TAG, state)
        value = float(curves.sort_values("validation_loss")[self.metric].iloc[0])
        early = ", ended early" if pruner.pruned else ""
        log.info("trial %d: %s %.4f%s", trial.number, self.metric, value, early)
        if pruner.pruned:
            raise optuna.TrialPruned
        return value

    def _fit(self, trial: Trial, folder: Path, callbacks: list[TrainerCallback]) -> pd.DataFrame:
        clear_device_cache(garbage_collection=True)  # of the trial before
        try:
            return self._fit_with(self.space.settings(trial.params), folder, callbacks)
        except Exception as error:
            if not _is_of_this_trial_alone(error):
                raise
            raise TrialFailed(_why(error)) from error

    def _fit_with(self, settings: TrainSettings, folder: Path, callbacks: list[TrainerCallback]) -> pd.DataFrame:
        texts = [*self.train["text"], *self.train["title"]]
        prepared = prepare(self.space.model, self.space.model_settings, settings, texts)
        return fit(
            prepared.trained,
            prepared.inputs,
            self.train,
            self.validation,
            settings,
            score=self.score,
            resume_from=folder,
            callbacks=callbacks,
        )


def _is_of_this_trial_alone(error: Exception) -> bool:
    return isinstance(error, (Rejected, UsageError, TooLittleMemory)) or lacks_memory(error)


def _why(error: Exception) -> str:
    if isinstance(error, Diverged):
        return "its loss grew beyond all numbers"  # at a rate that the search has drawn, and no entry of params.yaml
    if isinstance(error, LearntNothing):
        return "it changed no weight"
    return "there was too little memory for it" if lacks_memory(error) else str(error)


class _Prune(TrainerCallback):
    """Tells Optuna how each epoch went, and ends the training where it sees no hope."""

    def __init__(self, trial: Trial, metric: str) -> None:
        self._trial = trial
        self._metric = metric.replace("validation_", "")
        self.pruned = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: object,
    ) -> None:
        self._trial.report(metrics[f"eval_{self._metric}"], round(state.epoch))
        # After its last epoch there is nothing left to spare.
        if state.global_step < state.max_steps and self._trial.should_prune():
            self.pruned = control.should_training_stop = True
