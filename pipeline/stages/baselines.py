"""The stage `baselines`: titles of the baselines for the validation and test splits, and their scores."""

from __future__ import annotations

import time

import pandas as pd

from pipeline.data.lesson_openings import marked_texts
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predicted_titles import MEASURED_SPLITS
from pipeline.evaluation.results import scored_predictions, write_results
from pipeline.paths import SPLITS


def run() -> None:
    """Write titles with each baseline, score them and write the results."""
    settings = EvaluateSettings.read()
    train, *measured = (pd.read_parquet(SPLITS / f"{split}.parquet") for split in ("train", *MEASURED_SPLITS))
    for name, baseline in BASELINES.items():
        start = time.monotonic()
        titles = [baseline(train, marked_texts(examples)) for examples in measured]
        seconds = time.monotonic() - start
        scored = [scored_predictions(*each, settings) for each in zip(measured, titles, MEASURED_SPLITS, strict=True)]
        write_results(name, pd.concat(scored, ignore_index=True), settings, seconds)
