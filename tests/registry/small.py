"""A small model and its registered versions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.models.checkpoints import Card, save_model
from pipeline.models.title_cleanup import PLAIN, TitleStyle
from pipeline.registry import promotion, registration
from pipeline.registry.gate import Verdict
from pipeline.registry.lineage import md5
from tests.models.small import GREEDY, lively_model, small_model

NAME = "titles"


def save_small_model(folder: Path, examples: pd.DataFrame, family: str = "t5", style: TitleStyle = PLAIN) -> Path:
    """Save a model. T5 with its first weights writes only padding, and a causal model only a mark."""
    model, inputs = small_model(family, examples) if family == "t5" else lively_model(family, examples)
    folder.mkdir(parents=True)
    card = Card(
        model=folder.name,
        family=family,
        checkpoint="scratch",
        max_source_tokens=48,
        max_target_tokens=12,
        style=style,
    )
    save_model(folder, model, inputs.tokenizer, card, "float32")
    return folder


def register(client: MlflowClient, folder: Path, **settings: object) -> ModelVersion:
    """Register the model in `folder`; other generation settings make another version."""
    tags = {"model": folder.name, "model.md5": md5(folder)}
    return registration.register(client, NAME, folder, GREEDY.model_copy(update=settings), run_id="0" * 32, tags=tags)


def make_champion(client: MlflowClient, number: int | None, *, because: str = "") -> promotion.Move:
    """Promote a version without a gate."""
    move, _ = promotion.promote(
        client, NAME, number, because=because, judge=lambda new, _: Verdict(str(new.version), None, [])
    )
    return move


def aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(NAME).aliases.items()}
