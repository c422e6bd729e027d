"""One model's titles for the validation and test splits with their scores, and the summary of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from pydantic import BaseModel, ConfigDict

from pipeline.data.lessons import LESSON
from pipeline.errors import Rejected
from pipeline.evaluation.intervals import Interval, Unit, interval_of_mean, read_unit, units_of
from pipeline.evaluation.metrics import EvaluateSettings, score_titles
from pipeline.evaluation.scores import SCORES, Score
from pipeline.evaluation.written_titles import EXAMPLE, MEASURED_SPLITS, titled
from pipeline.files import file_aside, write_json
from pipeline.paths import METRICS, PREDICTIONS, RESULTS

COMPARED = ("rouge1", "bertscore_f1")  # the scores in a metrics file, which `dvc metrics diff` and `dvc exp show` show


class ModelMetrics(BaseModel):
    """All scores of a model, as its file in reports/results/ holds them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    bertscore_model: str
    bertscore_layers: int
    confidence: float  # of every interval
    unit: Unit  # that the intervals are computed over
    # Both: of every score the mean, `SCORE_low` and `SCORE_high`; mean_words, examples and lessons.
    validation: dict[str, float | int]
    test: dict[str, float | int]
    seconds: float  # what giving the titles took
    seen_validation: int = 0  # validation examples that the model or one of its checkpoints was trained on
    seen_test: int = 0  # test examples that the model or one of its checkpoints was trained or selected on

    def on_test(self, score: Score) -> Interval:
        """That score on the test split."""
        return Interval(self.test[score], self.test[f"{score}_low"], self.test[f"{score}_high"])


def scored_predictions(
    examples: pd.DataFrame, predicted: Sequence[str], split: str, settings: EvaluateSettings
) -> pd.DataFrame:
    """The titles that a model gave to `examples`, with their scores.

    Args:
        examples: a split, with the columns course_title, lesson_num, start_seconds and title.
        predicted: a title an example, in the same order.

    Returns:
        A row an example: `EXAMPLE`, title, prediction, prediction_words, and the columns `SCORES`.

    Raises:
        ValueError: there are not as many titles as examples.
    """
    scores = score_titles(predicted, examples["title"].tolist(), settings)
    known = titled(examples, predicted, split)
    words = known["prediction"].str.split().str.len().astype("int64")
    return pd.concat([known.assign(prediction_words=words), scores], axis="columns")


def summarise(
    model: str,
    scored: pd.DataFrame,
    settings: EvaluateSettings,
    seconds: float,
    seen: Mapping[str, int] | None = None,
) -> ModelMetrics:
    """Compute means and intervals of `scored`, which holds both splits.

    Args:
        seen: by split, the number of examples that the model has seen; none of a baseline.

    Raises:
        Rejected: a split holds no example.
    """
    unit = read_unit()
    return ModelMetrics(
        model=model,
        bertscore_model=settings.bertscore_model,
        bertscore_layers=settings.bertscore_layers,
        confidence=settings.confidence,
        unit=unit,
        seconds=round(seconds, 2),
        **{f"seen_{split}": count for split, count in (seen or {}).items()},
        **{
            split: _summary(scored[scored["split"] == split], split, unit, settings.confidence)
            for split in MEASURED_SPLITS
        },
    )


def _summary(scored: pd.DataFrame, split: str, unit: Unit, confidence: float) -> dict[str, float | int]:
    if scored.empty:
        raise Rejected(
            f"The {split} split holds no example, so nothing can be measured on it. Give the workbook more lessons, or "
            f"raise split.{split} in params.yaml."
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
    """Write a model's scored predictions, its scores, and the few scores that DVC shows; return the scores.

    Args:
        seen: as `summarise` takes it.

    Raises:
        Rejected: a split holds no example.
    """
    metrics = summarise(model, scored, settings, seconds, seen)
    with file_aside(PREDICTIONS / f"{model}.parquet", durable=False) as path:
        scored.to_parquet(path, index=False)
    write_json(RESULTS / f"{model}.json", metrics.model_dump(), durable=False)
    shown = {split: {score: getattr(metrics, split)[score] for score in COMPARED} for split in MEASURED_SPLITS}
    write_json(METRICS / f"{model}.json", shown, durable=False)
    return metrics


def read_results(model: str) -> tuple[ModelMetrics, pd.DataFrame]:
    """What `write_results` wrote for `model`.

    Raises:
        Rejected: it is not there, or is not of that shape.
    """
    try:
        metrics = ModelMetrics.model_validate_json((RESULTS / f"{model}.json").read_text(encoding="utf-8"))
        scored = pd.read_parquet(PREDICTIONS / f"{model}.parquet")
    except FileNotFoundError as error:
        raise Rejected(
            f"{error.filename} is not here: '{model}' has not been evaluated. Run `dvc repro` first."
        ) from None
    except (ValueError, OSError) as error:
        raise Rejected(f"The results of '{model}' cannot be read: {error}. Evaluate it again.") from None
    if missing := {*EXAMPLE, "title", "prediction", *SCORES} - {*scored.columns}:
        raise Rejected(
            f"{PREDICTIONS / model}.parquet has no column {', '.join(sorted(missing))}. Evaluate '{model}' again."
        )
    return metrics, scored
