"""`evaluate@MODEL`: one model's titles for the validation and test splits, and their scores."""

from __future__ import annotations

import logging
import time

import pandas as pd

from pipeline.data.openings import asked
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predictions import MEASURED_SPLITS, scored_predictions, write_results
from pipeline.models.generation import GenerateSettings, open_titler
from pipeline.models.seen import count_seen
from pipeline.paths import MODELS, SPLITS
from pipeline.registry.away import patiently
from pipeline.registry.tracking import connect, log_evaluation
from pipeline.training.record import read_training

log = logging.getLogger(__name__)


def run(model: str) -> None:
    settings = EvaluateSettings.read()
    client, run_id = connect(), read_training(model).run.run_id
    titler = open_titler(MODELS / model, GenerateSettings.read(model))
    scored, seconds = [], 0.0
    for split in MEASURED_SPLITS:
        examples = pd.read_parquet(SPLITS / f"{split}.parquet")
        if seen := count_seen(MODELS / model, split, examples):
            log.warning(
                "%s or a model that it started from was trained or selected on %d of the %d examples of the %s split. "
                "Its scores there are too good.",
                *(model, seen, len(examples), split),
            )
        start = time.monotonic()
        titles = titler.best_titles(asked(examples), progress=f"{model}, {split}")
        seconds += time.monotonic() - start
        scored.append(scored_predictions(examples, titles, split, settings))
    predictions = pd.concat(scored, ignore_index=True)
    metrics = write_results(model, predictions, settings, seconds, run_id=run_id)
    patiently(lambda: log_evaluation(client, metrics, predictions), "What was evaluated")
    print(f"{model}: validation ROUGE-1 {metrics.validation['rouge1']:.4f}, test ROUGE-1 {metrics.test['rouge1']:.4f}")
