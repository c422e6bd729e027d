"""Build a project in which a trial takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

MODEL = "bart-tiny"
GOOD, HOPELESS = 1e-2, 1e-9

SEARCH = {
    "metric": "validation_loss",
    "ranges": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}, "batch_size": {"choices": [4, 8]}},
    "models": {},
    "pruning": None,
    "seed": 1,
}


def write_splits(folder: Path, examples: pd.DataFrame) -> None:
    (folder / "data/splits").mkdir(parents=True)
    for split, rows in (("train", examples), ("validation", examples.head(4)), ("test", examples.tail(4))):
        rows.to_parquet(folder / f"data/splits/{split}.parquet")


def write_params(train: dict[str, Any] | None = None, **search: Any) -> None:
    """Replace the settings in the working directory by those of a small model and a small search."""
    path = Path("params.yaml")
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["models"][MODEL] |= {
        "scratch": {"width": 32, "layers": 1, "heads": 2, "vocabulary": 400},
        "max_source_tokens": 48,
        "max_target_tokens": 12,
        "train": {"learning_rate": GOOD, "batch_size": 4, **(train or {})},
    }
    params["search"] = {**SEARCH, **search}
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
