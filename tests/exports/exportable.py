"""Small registered versions that can be exported."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from pipeline.models.checkpoints import Card, save_model
from pipeline.models.generation import GenerateSettings
from pipeline.registry.lineage import md5
from pipeline.registry.register_settings import RegisterSettings
from pipeline.registry.registration import register
from pipeline.registry.tracking import connect
from tests.models.small import GREEDY, lively_model


def register_small(
    folder: Path, family: str, examples: pd.DataFrame, settings: GenerateSettings = GREEDY
) -> ModelVersion:
    """Register a model of `family` that writes nonsense, with its files in `folder`."""
    model, inputs = lively_model(family, examples)
    folder.mkdir(parents=True)
    card = Card(model=family, family=family, checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    save_model(folder, model, inputs.tokenizer, card, "float32")
    tags = {"model": family, "model.md5": md5(folder)}
    return register(connect(), RegisterSettings.read().name, folder, settings, run_id="0" * 32, tags=tags)
