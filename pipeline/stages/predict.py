"""`predict@MODEL`: one model's titles for the validation and test splits."""

from __future__ import annotations

import time

import pandas as pd

from pipeline.data.openings import asked
from pipeline.evaluation.titled import MEASURED_SPLITS, titled, write_titles
from pipeline.models.generation import GenerateSettings, open_titler
from pipeline.paths import MODELS, SPLITS


def run(model: str) -> None:
    titler = open_titler(MODELS / model, GenerateSettings.read(model), keep_features=True)
    given, seconds = [], 0.0
    for split in MEASURED_SPLITS:
        examples = pd.read_parquet(SPLITS / f"{split}.parquet")
        start = time.monotonic()
        titles = titler.best_titles(asked(examples), progress=f"{model}, {split}")
        seconds += time.monotonic() - start
        given.append(titled(examples, titles, split))
    titles = pd.concat(given, ignore_index=True)
    write_titles(model, titles, seconds)
    print(f"{model}: {len(titles):,} titles in {seconds:.1f} s")
