"""`evaluate@MODEL`: one model's titles for the validation and test splits, and their scores."""

from __future__ import annotations

import time

import pandas as pd

from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predictions import scored_predictions, write_results
from pipeline.models.checkpoints import load_model
from pipeline.models.families import FAMILIES
from pipeline.models.generation import GenerateSettings, Titler
from pipeline.models.inputs import Inputs
from pipeline.paths import MODELS, SPLITS
from pipeline.registry.tracking import connect, log_evaluation
from pipeline.training.record import read_training


def run(model: str) -> None:
    settings = EvaluateSettings.read()
    network, tokenizer, card = load_model(MODELS / model)
    inputs = Inputs(
        FAMILIES[card.family],
        tokenizer,
        max_source_tokens=card.max_source_tokens,
        max_target_tokens=card.max_target_tokens,
    )
    titler = Titler(network, inputs, GenerateSettings.read(model))
    scored, seconds = [], 0.0
    for split in ("validation", "test"):
        examples = pd.read_parquet(SPLITS / f"{split}.parquet")
        start = time.monotonic()
        titles = titler.best_titles(examples["text"].tolist(), progress=f"{model}, {split}")
        seconds += time.monotonic() - start
        scored.append(scored_predictions(examples, titles, split, settings))
    run_id = read_training(model).run.run_id
    predictions = pd.concat(scored, ignore_index=True)
    metrics = write_results(model, predictions, settings, seconds, run_id=run_id)
    log_evaluation(connect(), metrics, predictions)
    print(f"{model}: validation ROUGE-1 {metrics.validation['rouge1']:.4f}, test ROUGE-1 {metrics.test['rouge1']:.4f}")
