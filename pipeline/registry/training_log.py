"""What a training says while it runs, into its MLflow run."""

from __future__ import annotations

import logging
import time

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.time import get_current_time_millis
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.registry.outages import attempt, patiently

log = logging.getLogger(__name__)

LOOK_AGAIN = 30.0
"""Seconds between looks at such a server while the training goes on: a look holds it up for as long as MLflow tries."""

_FLUSH_METRICS = 100
_SYSTEM = "system/"  # the machine's load, which MLflow logs by itself: long histories, and no step of the training
_BATCH = 500  # MLflow takes a thousand


class LogToMlflow(TrainerCallback):
    """Every step's loss and every epoch's scores, a batch of them at a time, each of them once.

    A server that is away does not end the training: what it has not taken waits for it. Nor is anything lost when the
    training is killed: the one that goes on from there finds it in the checkpoint's own log.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._there: set[tuple[str, int]] = set()
        self._waiting: list[Metric] = []
        self._next_look = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take up what a killed training logged, and look which of it has reached the run."""
        for name in self._client.get_run(self._run_id).data.metrics:
            if name.startswith(_SYSTEM):
                continue
            history = self._client.get_metric_history(self._run_id, name)
            self._there.update((metric.key, metric.step) for metric in history)
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
        if len(self._waiting) < _FLUSH_METRICS or time.monotonic() < self._next_look:
            return
        if away := attempt(self._flush):
            self._next_look = time.monotonic() + LOOK_AGAIN
            log.warning("%s The training goes on; %d metrics wait.", away, len(self._waiting))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """
        Raises:
            TemporaryFailure: the server stays away. The checkpoint is there: the same command has but to log again.
        """
        patiently(self._flush, "What was trained")

    def _keep(self, logs: dict[str, float], step: int) -> None:
        if "train_runtime" in logs:  # the trainer's own summary, of its last leg alone
            return
        now = get_current_time_millis()
        named = {_name(key): value for key, value in logs.items() if key not in ("epoch", "step")}
        self._waiting += [
            Metric(name, value, now, step) for name, value in named.items() if (name, step) not in self._there
        ]

    def _flush(self) -> None:
        while batch := self._waiting[:_BATCH]:
            self._client.log_batch(self._run_id, metrics=batch)
            del self._waiting[: len(batch)]


def _name(key: str) -> str:
    return key.replace("eval_", "validation_") if key.startswith("eval_") else f"train_{key}"
