"""The stage `baselines`: titles of the baselines for the validation and test splits, and their scores."""

from __future__ import annotations

import time

import pandas as pd

from pipeline.data.openings import asked
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predictions import scored_predictions, write_results
from pipeline.evaluation.written_titles import MEASURED_SPLITS
from pipeline.paths import SPLITS


def run() -> None:
    """Write titles with each baseline, score them and write the results."""
    settings = EvaluateSettings.read()
    train, *measured = (pd.read_parquet(SPLITS / f"{split}.parquet") for split in ("train", *MEASURED_SPLITS))
    for name, baseline in BASELINES.items():
        start = time.monotonic()
        titles = [baseline(train, asked(examples)) for examples in measured]
        seconds = time.monotonic() - start
        scored = [scored_predictions(*each, settings) for each in zip(measured, titles, MEASURED_SPLITS, strict=True)]
        write_results(name, pd.concat(scored, ignore_index=True), settings, seconds)
