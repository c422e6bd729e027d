"""Score the titles of a model, and write and read the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pandas as pd

from pipeline.data.workbook_schema import LESSON
from pipeline.errors import Rejected
from pipeline.evaluation.intervals import Interval, Unit, interval_of_mean, read_unit, units_of
from pipeline.evaluation.metrics import EvaluateSettings, score_titles
from pipeline.evaluation.predicted_titles import EXAMPLE, MEASURED_SPLITS, title_table
from pipeline.evaluation.score_names import SCORES, Score
from pipeline.files import file_aside, write_json
from pipeline.json_records import Record
from pipeline.paths import METRICS, PREDICTIONS, RESULTS

COMPARED = (
    "rouge1",
    "bertscore_f1",
)  # the scores in the metrics files of DVC, for `dvc metrics diff` and `dvc exp show`


class ModelMetrics(Record):
    """All mean scores of a model, as in its file in reports/results/."""

    model: str
    bertscore_model: str
    bertscore_layers: int
    confidence: float  # of every interval
    unit: Unit  # independent unit of the intervals
    # Both splits: SCORE (the mean), SCORE_low and SCORE_high for each score; mean_words, examples and lessons.
    validation: dict[str, float | int]
    test: dict[str, float | int]
    seconds: float  # time to generate the titles
    seen_validation: int = 0  # validation examples that the model or one of its checkpoints was trained on
    seen_test: int = 0  # test examples that the model or one of its checkpoints was trained or selected on

    def on_test(self, score: Score) -> Interval:
        """Return the interval of a score on the test split."""
        return Interval(self.test[score], self.test[f"{score}_low"], self.test[f"{score}_high"])


def scored_predictions(
    examples: pd.DataFrame, predicted: Sequence[str], split: str, settings: EvaluateSettings
) -> pd.DataFrame:
    """Score the titles of a model.

    Args:
        examples: a split, with the columns course_title, lesson_num, start_seconds and title.
        predicted: one title per example, in the same order.
        split: the name of the split.
        settings: the model of BERTScore.

    Returns:
        One row per example: `EXAMPLE`, title, prediction, prediction_words, and the columns `SCORES`.

    Raises:
        ValueError: the number of titles differs from the number of examples.
    """
    scores = score_titles(predicted, examples["title"].tolist(), settings)
    known = title_table(examples, predicted, split)
    words = known["prediction"].str.split().str.len().astype("int64")
    return pd.concat([known.assign(prediction_words=words), scores], axis="columns")


def summarise(
    model: str,
    scored: pd.DataFrame,
    settings: EvaluateSettings,
    seconds: float,
    seen: Mapping[str, int] | None = None,
) -> ModelMetrics:
    """Compute means and intervals.

    Args:
        model: the name of the model.
        scored: from `scored_predictions`, of both splits.
        settings: the confidence of the intervals, and the model of BERTScore.
        seconds: the time to generate the titles.
        seen: by split, the number of examples that the model was trained or selected on; None for a baseline.

    Raises:
        Rejected: a split has no examples.
    """
    unit = read_unit()
    return ModelMetrics(
        model=model,
        bertscore_model=settings.bertscore_model,
        bertscore_layers=settings.bertscore_layers,
        confidence=settings.confidence,
        unit=unit,
        seconds=round(seconds, 2),
        validation=_summary(scored, "validation", unit, settings.confidence),
        test=_summary(scored, "test", unit, settings.confidence),
        seen_validation=seen.get("validation", 0) if seen else 0,
        seen_test=seen.get("test", 0) if seen else 0,
    )


def _summary(both_splits: pd.DataFrame, split: str, unit: Unit, confidence: float) -> dict[str, float | int]:
    scored = both_splits[both_splits["split"] == split]
    if scored.empty:
        raise Rejected(
            f"The {split} split has no examples to measure on. Add lessons to the workbook, or raise split.{split} in "
            "params.yaml."
        )
    summary: dict[str, float | int] = {}
    units = units_of(scored, unit)
    for name in SCORES:
        interval = interval_of_mean(scored[name], units, confidence=confidence)
        summary |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return summary | {
        "mean_words": float(scored["prediction_words"].mean()),
        "examples": len(scored),
        "lessons": len(scored[LESSON].drop_duplicates()),
    }


def write_results(
    model: str,
    scored: pd.DataFrame,
    settings: EvaluateSettings,
    seconds: float,
    seen: Mapping[str, int] | None = None,
) -> ModelMetrics:
    """Write the scored titles of a model, its mean scores, and the scores that DVC shows.

    The arguments are those of `summarise`.

    Raises:
        Rejected: a split has no examples.
    """
    metrics = summarise(model, scored, settings, seconds, seen)
    with file_aside(PREDICTIONS / f"{model}.parquet", durable=False) as path:
        scored.to_parquet(path, index=False)
    write_json(RESULTS / f"{model}.json", metrics.model_dump(), durable=False)
    shown = {split: {score: getattr(metrics, split)[score] for score in COMPARED} for split in MEASURED_SPLITS}
    write_json(METRICS / f"{model}.json", shown, durable=False)
    return metrics


def read_metrics(model: str) -> ModelMetrics:
    """Read the mean scores of a model.

    Raises:
        Rejected: the file is missing or damaged.
    """
    with _explaining_unreadable_results(model):
        return ModelMetrics.model_validate_json((RESULTS / f"{model}.json").read_text(encoding="utf-8"))


def read_results(model: str) -> tuple[ModelMetrics, pd.DataFrame]:
    """Read the mean scores and the scored titles of a model.

    Raises:
        Rejected: a file is missing or damaged, or lacks a column.
    """
    metrics = read_metrics(model)
    with _explaining_unreadable_results(model):
        scored = pd.read_parquet(PREDICTIONS / f"{model}.parquet")
    if missing := {*EXAMPLE, "title", "prediction", *SCORES} - {*scored.columns}:
        raise Rejected(f"{PREDICTIONS / model}.parquet has no column {', '.join(sorted(missing))}. Run `dvc repro`.")
    return metrics, scored


@contextmanager
def _explaining_unreadable_results(model: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Rejected(f"{error.filename} is missing: '{model}' has no scores yet. Run `dvc repro`.") from None
    except (ValueError, OSError) as error:
        raise Rejected(f"The results of '{model}' cannot be read: {error}. Run `dvc repro`.") from None
