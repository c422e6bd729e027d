"""Run one trial of a search: a training like that of the train stage, in its own MLflow run."""

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
from pipeline.search.space import Space, format_value
from pipeline.search.study import RUN_ID, TrialFailed
from pipeline.training.prepare import prepare
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import Score, TooLittleMemory, TrainingDiverged, WeightsUnchanged, fit

log = logging.getLogger(__name__)

STATE_TAG = "trial.state"


@dataclass(frozen=True)
class TrainTrial:
    """Objective of a search: the metric at the epoch with the lowest validation loss, whose weights are kept."""

    space: Space
    metric: str
    score: Score
    train: pd.DataFrame
    validation: pd.DataFrame
    client: MlflowClient
    tags: dict[str, str]  # tags of all runs

    def __call__(self, trial: Trial, folder: Path) -> float:
        """Train with the trial's settings, and return the metric.

        Args:
            trial: The trial.
            folder: A temporary folder for checkpoints.

        Raises:
            TrialFailed: The training failed because of the trial's settings.
            optuna.TrialPruned: The trial ended early.
        """
        values = self.space.values(trial.params)
        description = ", ".join(f"{name} {format_value(value)}" for name, value in values.items())
        log.info("trial %d: %s", trial.number, description)
        with training_run(
            f"{self.space.model} trial {trial.number}",
            params={**self.space.model_settings.model_dump(exclude={"train"}), **self.space.fixed, **values},
            tags={"trial": str(trial.number), **self.tags},
            splits=TRAINING_SPLITS,
            nested=True,
        ) as run_id:
            trial.set_user_attr(RUN_ID, run_id)
            pruner = _PruneHopelessTrial(trial, self.metric)
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
        clear_device_cache(garbage_collection=True)  # from the previous trial
        try:
            return self._fit_with(self.space.settings(trial.params), folder, callbacks)
        except Exception as error:
            if not _depends_on_settings(error):
                raise
            raise TrialFailed(_explain(error)) from error

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


def _depends_on_settings(error: Exception) -> bool:
    """Return whether other trials may succeed although this one failed."""
    return isinstance(error, (Rejected, UsageError, TooLittleMemory)) or lacks_memory(error)


def _explain(error: Exception) -> str:
    """Return the reason without a remedy for `params.yaml`: the search has chosen the settings."""
    if isinstance(error, TrainingDiverged):
        return "its loss became infinite or not a number"
    if isinstance(error, WeightsUnchanged):
        return "it changed no weight"
    return "it ran out of memory" if lacks_memory(error) else str(error)


class _PruneHopelessTrial(TrainerCallback):
    """Report the metric of each epoch to Optuna, and end the training if Optuna prunes the trial."""

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
        # After the last epoch, pruning saves no time.
        if state.global_step < state.max_steps and self._trial.should_prune():
            self.pruned = control.should_training_stop = True
