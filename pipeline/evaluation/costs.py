"""The cost of each model: times, which the leaderboard's file leaves out, so that it changes only with scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.evaluation.leaderboard import Leaderboard
from pipeline.evaluation.results import ModelMetrics, read_metrics
from pipeline.training.record import TrainingRun, read_training


@dataclass(frozen=True)
class Cost:
    """Times of one model on the machines that trained and evaluated it."""

    training_seconds: float | None  # None for a model that is used as published
    titles_per_second: float


def costs_of(metrics: Mapping[str, ModelMetrics], training: Mapping[str, TrainingRun]) -> dict[str, Cost]:
    """Return the cost of each model in `training`.

    Args:
        metrics: the results of the models, by name.
        training: the records of their trainings, by name.
    """
    return {model: _cost(metrics[model], run) for model, run in training.items()}


def _cost(metrics: ModelMetrics, run: TrainingRun) -> Cost:
    titles = metrics.validation["examples"] + metrics.test["examples"]
    return Cost(run.seconds if run.trainable_parameters else None, titles / max(metrics.seconds, 0.01))


def read_costs(leaderboard: Leaderboard) -> dict[str, Cost]:
    """Read the cost of each model on a leaderboard from the files of its training and its results.

    Raises:
        Rejected: a file is missing or damaged.
    """
    models = [row.model for row in leaderboard.rows if not row.is_baseline]
    training = {model: read_training(model).run for model in models}
    return costs_of({model: read_metrics(model) for model in models}, training)
