"""All that a training depends on, as one short name, and what it starts from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.checkpoints import ModelSettings
from pipeline.paths import TRAINING_SPLITS
from pipeline.registry.lineage import md5


def training_fingerprint(model: ModelSettings, knobs: Mapping[str, Any], start: Mapping[str, str]) -> str:
    """Twelve hex digits that another model, other knobs, weights, splits, code or libraries would change.

    Args:
        start: what `checkpoint_tags` says of `model`.
    """
    inputs = [
        model.model_dump_json(exclude={"train"}),
        json.dumps(knobs, sort_keys=True),
        start.get("checkpoint.md5", "scratch"),
        *map(md5, (*TRAINING_SPLITS.values(), Path("pipeline/models"), Path("pipeline/training"))),
        torch.__version__,
        transformers.__version__,
    ]
    return hashlib.sha256(" ".join(inputs).encode()).hexdigest()[:12]


def checkpoint_tags(model: ModelSettings) -> dict[str, str]:
    """Which weights a training starts from: where they are found, and their hash; none of those it makes anew."""
    if model.scratch:
        return {}
    return {"checkpoint": model.checkpoint, "checkpoint.md5": md5(find_checkpoint(model.checkpoint))}
