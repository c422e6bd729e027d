"""Log a training's metrics to its MLflow run while it runs."""

from __future__ import annotations

import logging
import time

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.time import get_current_time_millis
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.registry.outages import attempt, retry

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""Seconds between two attempts to reach a server that does not answer: each attempt stops the training for a while."""

_FLUSH_METRICS = 100
_SYSTEM = "system/"  # metrics of the machine that MLflow logs by itself, with long histories
_BATCH = 500  # MLflow accepts up to 1000


class LogToMlflow(TrainerCallback):
    """Log the loss of each step and the scores of each epoch in batches, each value once.

    If the server does not answer, the training continues and the values wait. After a kill nothing is lost either: the
    training that resumes finds the values in the log of its checkpoint.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._logged: set[tuple[str, int]] = set()
        self._waiting: list[Metric] = []
        self._next_attempt = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take over the values of a killed training, except for those that the run already has."""
        for name in self._client.get_run(self._run_id).data.metrics:
            if name.startswith(_SYSTEM):
                continue
            history = self._client.get_metric_history(self._run_id, name)
            self._logged.update((metric.key, metric.step) for metric in history)
        for entry in state.log_history:
            self._keep(entry, entry["step"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: object,
    ) -> None:
        self._keep(logs, state.global_step)
        if len(self._waiting) < _FLUSH_METRICS or time.monotonic() < self._next_attempt:
            return
        if failure := attempt(self._flush):
            self._next_attempt = time.monotonic() + RETRY_SECONDS
            log.warning("%s The training continues; %d metrics wait.", failure, len(self._waiting))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Log the values that still wait.

        Raises:
            TemporaryFailure: the server still does not answer. The same command resumes from the last checkpoint.
        """
        retry(self._flush, "The log of the training")

    def _keep(self, logs: dict[str, float], step: int) -> None:
        if "train_runtime" in logs:  # the trainer's own summary, which covers only the part since a resume
            return
        now = get_current_time_millis()
        named = {_name(key): value for key, value in logs.items() if key not in ("epoch", "step")}
        self._waiting += [
            Metric(name, value, now, step) for name, value in named.items() if (name, step) not in self._logged
        ]

    def _flush(self) -> None:
        while batch := self._waiting[:_BATCH]:
            self._client.log_batch(self._run_id, metrics=batch)
            del self._waiting[: len(batch)]


def _name(key: str) -> str:
    return key.replace("eval_", "validation_") if key.startswith("eval_") else f"train_{key}"
