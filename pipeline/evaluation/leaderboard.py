"""Rank models, choose the best, and compare it with the baselines. docs/measuring.md explains the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from pipeline.errors import Rejected
from pipeline.evaluation.comparison import Comparison, compare, fewest_units
from pipeline.evaluation.intervals import Interval, Unit, standard_error, sum_by_unit, units_of
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predicted_titles import EXAMPLE
from pipeline.evaluation.results import ModelMetrics
from pipeline.evaluation.score_names import SCORES, Score
from pipeline.evaluation.title_measures import TitleMeasures
from pipeline.json_records import Record, read_record
from pipeline.paths import LEADERBOARD
from pipeline.settings import Section
from pipeline.training.record import TrainingRun

FEW_EXAMPLES = 50
"""With fewer validation examples, the report warns that the ranking may be chance."""


class CompareSettings(Section):
    """Settings of the leaderboard."""

    section: ClassVar[str] = "compare"

    metric: Score  # models are ranked by its mean on the validation split


class Row(Record):
    """One model on the leaderboard."""

    model: str
    is_baseline: bool
    validation: dict[str, float]  # mean of each score
    tied: bool  # no model is better on the validation split with confidence; always false for a baseline
    test: dict[str, Interval]  # mean of each score with its interval
    difference: Comparison | None  # from the best baseline, on the same test examples; None for that baseline
    verdict: str
    seen_validation: int = 0  # validation examples that the model was trained on; its mean there is too good
    seen_test: int = 0  # test examples that the model was trained or selected on
    parameters: int | None = None  # None for a baseline
    from_scratch: bool = False  # the training started from random weights
    titles: TitleMeasures | None = None  # of the test split


class Leaderboard(Record):
    """All models, the best first, then the baselines. The same scores always give the same order."""

    metric: str
    bertscore_model: str
    bertscore_layers: int
    confidence: float  # of all intervals and claims
    unit: Unit  # of the statistics: lessons or examples
    validation_examples: int
    validation_lessons: int
    validation_needed: int  # units that the validation split needs to tell any two models apart
    test_examples: int
    test_lessons: int
    leader: str  # the model with the best mean on the validation split, among the models that may be registered
    best: str  # the model to register: the leader, or a smaller model within one standard error of it
    best_baseline: str
    best_beats_baselines: bool
    rows: list[Row]
    true_titles: TitleMeasures | None = None  # of the test split, to compare those of the models with

    def row(self, model: str) -> Row:
        """Return the row of a model."""
        return next(row for row in self.rows if row.model == model)

    @property
    def ties(self) -> list[str]:
        """The models that cannot be told apart from the leader on the validation split, the best first."""
        return [row.model for row in self.rows if row.tied]

    @property
    def validation_tells(self) -> bool:
        """Return whether the validation split has enough units to tell two models apart."""
        units = self.validation_lessons if self.unit == "lesson" else self.validation_examples
        return units >= self.validation_needed


def build_leaderboard(
    contestants: Sequence[str],
    baselines: Sequence[str],
    metrics: Mapping[str, ModelMetrics],
    predictions: Mapping[str, pd.DataFrame],
    settings: CompareSettings,
    *,
    evaluation: EvaluateSettings,
    training: Mapping[str, TrainingRun],
    titles: Mapping[str, TitleMeasures] | None = None,
    true_titles: TitleMeasures | None = None,
) -> Leaderboard:
    """Rank models by the validation mean of the metric, choose the best, and compare each with the best baseline.

    The comparison with the baseline uses the test split, which has no part in the ranking or the choice. A model that
    was trained on validation examples is chosen only if all models were.

    Args:
        contestants: the names of the models.
        baselines: the names of the baselines.
        metrics: the mean scores of all contestants and baselines, by name.
        predictions: the scored titles of all contestants and baselines for both splits, by name.
        settings: the metric.
        evaluation: the confidence.
        training: the size and origin of each contestant, by name.
        titles: measures of the titles of all contestants and baselines, by name, which have no part in the ranking.
        true_titles: the same of the true titles.

    Raises:
        Rejected: two models were evaluated on different examples, with different models of BERTScore or with different
            units, or the intervals of a model have another confidence than `evaluation`.
    """
    models = [*baselines, *contestants]
    aligned = _align({model: predictions[model] for model in models})
    reference = metrics[models[0]]
    unit = reference.unit
    for model in models:
        _check_bertscore(metrics[model], reference)
        _check_intervals(metrics[model], reference, evaluation)

    def on_validation(model: str) -> float:
        return metrics[model].validation[settings.metric]

    validation, test = (
        {model: scored.loc[split, settings.metric].to_numpy() for model, scored in aligned.items()}
        for split in ("validation", "test")
    )
    validation_units, test_units = (
        units_of(aligned[models[0]].loc[split].reset_index(), unit) for split in ("validation", "test")
    )
    level = 1 - evaluation.confidence
    eligible = [model for model in contestants if not metrics[model].seen_validation] or contestants
    level_of_a_tie = level / max(1, len(eligible) - 1)
    leader, best_baseline = max(eligible, key=on_validation), max(baselines, key=on_validation)
    scores = {model: validation[model] for model in eligible}
    tied = _tied(leader, scores, validation_units, level_of_a_tie)
    parameters = {model: training[model].parameters for model in contestants}
    best = _smallest_near(leader, {model: scores[model] for model in tied}, validation_units, parameters)

    def row(model: str) -> Row:
        is_best_baseline = model == best_baseline
        difference = None if is_best_baseline else compare(test[model], test[best_baseline], test_units, level=level)
        trained = training.get(model)
        return Row(
            model=model,
            is_baseline=model in baselines,
            validation={score: metrics[model].validation[score] for score in SCORES},
            tied=model in tied,
            test={score: metrics[model].on_test(score) for score in SCORES},
            difference=difference,
            verdict=_verdict(difference, best_baseline, unit),
            seen_validation=metrics[model].seen_validation,
            seen_test=metrics[model].seen_test,
            parameters=trained.parameters if trained else None,
            from_scratch=bool(trained and trained.from_scratch),
            titles=(titles or {}).get(model),
        )

    ranked = sorted(contestants, key=lambda model: (model == best, on_validation(model)), reverse=True)
    rows = [row(model) for model in [*ranked, *sorted(baselines, key=on_validation, reverse=True)]]
    difference = next(row.difference for row in rows if row.model == best)
    return Leaderboard(
        metric=settings.metric,
        bertscore_model=reference.bertscore_model,
        bertscore_layers=reference.bertscore_layers,
        confidence=evaluation.confidence,
        unit=unit,
        validation_examples=len(validation_units),
        validation_lessons=int(reference.validation["lessons"]),
        validation_needed=fewest_units(level_of_a_tie),
        test_examples=len(test_units),
        test_lessons=int(reference.test["lessons"]),
        leader=leader,
        best=best,
        best_baseline=best_baseline,
        best_beats_baselines=difference is not None and difference.finding == "better",
        rows=rows,
        true_titles=true_titles,
    )


def read_leaderboard(path: Path = LEADERBOARD) -> Leaderboard:
    """Read the leaderboard that the stage `compare` wrote.

    Raises:
        Rejected: the file is missing or damaged.
    """
    return read_record(Leaderboard, path, "compare")


def _tied(leader: str, scores: Mapping[str, np.ndarray], units: np.ndarray, level: float) -> list[str]:
    """Return the leader and the models that are not worse than it with confidence.

    If `level` is divided among the rivals of the leader, the truly best model is in the result with the stated
    confidence, whichever model leads.
    """
    found = {model: compare(scores[leader], own, units, level=level).finding for model, own in scores.items()}
    return [model for model in scores if model == leader or found[model] != "better"]


def _smallest_near(
    leader: str, scores: Mapping[str, np.ndarray], units: np.ndarray, parameters: Mapping[str, int]
) -> str:
    """Return the model with the fewest parameters within one standard error of the leader; with a tie, the better one.

    This is the one-standard-error rule of Breiman et al., 1984, "Classification and Regression Trees", section 3.4.3,
    with the standard error of the paired difference. A single unit has no standard error, so the result is the leader.
    """
    behind = {model: sum_by_unit(scores[leader] - own, units) for model, own in scores.items()}
    near = [model for model, lag in behind.items() if model == leader or lag.mean <= standard_error(lag)]
    return min(near, key=lambda model: (parameters[model], behind[model].mean, model != leader))


def _align(predictions: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Sort the predictions of all models alike, and check that their examples are the same."""
    aligned = {model: scored.set_index(EXAMPLE).sort_index() for model, scored in predictions.items()}
    first, reference = next(iter(aligned.items()))
    for model, scored in aligned.items():
        if not scored.index.equals(reference.index) or scored["title"].tolist() != reference["title"].tolist():
            raise Rejected(
                f"'{model}' and '{first}' were evaluated on different examples, so they cannot be compared. "
                "Run `dvc repro`, which evaluates outdated models again."
            )
    return aligned


def _check_bertscore(metrics: ModelMetrics, reference: ModelMetrics) -> None:
    used = (metrics.bertscore_model, metrics.bertscore_layers)
    if used != (reference.bertscore_model, reference.bertscore_layers):
        raise Rejected(
            f"'{metrics.model}' was scored by the BERTScore model '{used[0]}', layer {used[1]}, but "
            f"'{reference.model}' by '{reference.bertscore_model}', layer {reference.bertscore_layers}. "
            "Run `dvc repro`, which evaluates outdated models again."
        )


def _check_intervals(metrics: ModelMetrics, reference: ModelMetrics, evaluation: EvaluateSettings) -> None:
    if metrics.confidence != evaluation.confidence:
        raise Rejected(
            f"The intervals of '{metrics.model}' have a confidence of {metrics.confidence}, but evaluate.confidence is "
            f"{evaluation.confidence}. Run `dvc repro`, which evaluates outdated models again."
        )
    if metrics.unit != reference.unit:
        raise Rejected(
            f"The intervals of '{metrics.model}' were computed over {metrics.unit}s, but those of '{reference.model}' "
            f"over {reference.unit}s. Run `dvc repro`, which evaluates outdated models again."
        )


def _verdict(difference: Comparison | None, best_baseline: str, unit: Unit) -> str:
    if difference is None:
        return "the best baseline"
    return {
        "better": "beats the best baseline",
        "worse": f"worse than the best baseline ({best_baseline})",
        "not told apart": f"not told apart from the best baseline ({best_baseline})",
        "too few": f"too few {unit}s to tell",
    }[difference.finding]
