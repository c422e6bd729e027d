"""The stage `collect`: hashes of the contestants' results, and their training curves in one table.

The stages that compare models depend on these hashes. Whole folders may hold results of former contestants.
"""

from __future__ import annotations

import pandas as pd

from pipeline.files import file_aside, write_json
from pipeline.paths import COLLECTED, CURVES, MODELS, PREDICTIONS, RESULTS, TRAINING
from pipeline.registry.lineage import md5
from pipeline.settings import read_contestants
from pipeline.training.record import read_training


def run() -> None:
    """Write the hashes and the table of curves."""
    contestants = read_contestants()
    write_json(
        COLLECTED,
        {
            model: {
                "model": md5(MODELS / model),
                "training": md5(TRAINING / model),
                "predictions": md5(PREDICTIONS / f"{model}.parquet"),
                "results": md5(RESULTS / f"{model}.json"),
            }
            for model in contestants
        },
    )
    losses = {model: read_training(model).curves.set_index("epoch")["validation_loss"] for model in contestants}
    with file_aside(CURVES, durable=False) as path:
        pd.DataFrame(losses).rename_axis("epoch").to_csv(path)
