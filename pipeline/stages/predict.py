"""The stage `predict@MODEL`: titles of one model for the validation and test splits."""

from __future__ import annotations

import logging
import time

import pandas as pd

from pipeline.data.lesson_openings import marked_texts
from pipeline.evaluation.predicted_titles import MEASURED_SPLITS, title_table, write_titles
from pipeline.models.generation import GenerateSettings, open_titler
from pipeline.models.seen_examples import count_seen
from pipeline.paths import MODELS, SPLITS

log = logging.getLogger(__name__)


def run(model: str) -> None:
    """Write titles with `model`, and warn if it has seen the examples before."""
    titler = open_titler(MODELS / model, GenerateSettings.read(model))
    given, seconds = [], 0.0
    seen: dict[str, int] = {}
    for split in MEASURED_SPLITS:
        examples = pd.read_parquet(SPLITS / f"{split}.parquet")
        seen[split] = count_seen(MODELS / model, split, examples)
        _warn_of_seen_examples(model, split, seen[split], len(examples))
        start = time.monotonic()
        titles = titler.best_titles(marked_texts(examples), progress=f"{model}, {split}")
        seconds += time.monotonic() - start
        given.append(title_table(examples, titles, split))
    titles = pd.concat(given, ignore_index=True)
    write_titles(model, titles, seconds, seen)
    print(f"{model}: {len(titles):,} titles in {seconds:.1f} s")


def _warn_of_seen_examples(model: str, split: str, seen: int, examples: int) -> None:
    if seen:
        log.warning(
            "%s, or a model that it started from, was trained or selected on %d of the %d examples of the %s split. "
            "Its scores there are too high.",
            *(model, seen, examples, split),
        )
