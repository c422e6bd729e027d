"""The stage `score@MODEL`: the scores of one model's titles, also in the MLflow run of its training."""

from __future__ import annotations

import pandas as pd

from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predicted_titles import MEASURED_SPLITS, read_titles
from pipeline.evaluation.results import scored_predictions, write_results
from pipeline.registry.outages import retry
from pipeline.registry.tracking import connect, log_evaluation
from pipeline.training.record import read_training


def run(model: str) -> None:
    """Score the titles of `model`, write the results and log them to MLflow."""
    settings = EvaluateSettings.read()
    # The run is not a dependency of this stage: if a training repeats its result, `register` logs the scores.
    client, run_id = connect(), read_training(model).run.run_id
    titles, seconds, seen = read_titles(model)
    by_split = {split: titles[titles["split"] == split] for split in MEASURED_SPLITS}
    scored = [
        scored_predictions(given, given["prediction"].tolist(), split, settings) for split, given in by_split.items()
    ]
    predictions = pd.concat(scored, ignore_index=True)
    metrics = write_results(model, predictions, settings, seconds, seen)
    retry(lambda: log_evaluation(client, run_id, metrics, predictions), "The evaluation")
    print(f"{model}: validation ROUGE-1 {metrics.validation['rouge1']:.4f}, test ROUGE-1 {metrics.test['rouge1']:.4f}")
