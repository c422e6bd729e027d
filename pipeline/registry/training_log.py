"""What a training says while it runs, into its MLflow run."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.time import get_current_time_millis
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_FLUSH_METRICS = 100


class LogToMlflow(TrainerCallback):
    """Every step's loss and every epoch's scores, a batch of them at a time."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._waiting: list[Metric] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: object,
    ) -> None:
        now = get_current_time_millis()
        names = {
            name: name.replace("eval_", "validation_") if name.startswith("eval_") else f"train_{name}" for name in logs
        }
        self._waiting += [
            Metric(names[name], value, now, state.global_step) for name, value in logs.items() if name != "epoch"
        ]
        if len(self._waiting) >= _FLUSH_METRICS:
            self._flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._flush()

    def _flush(self) -> None:
        self._client.log_batch(self._run_id, metrics=self._waiting)
        self._waiting = []
