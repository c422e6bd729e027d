"""A training of a few seconds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
import transformers
from transformers import TrainerCallback

from pipeline.models.layers import freeze
from pipeline.models.lora import LoraSettings, merge, wrap
from pipeline.training.fit import fit
from pipeline.training.settings import TrainSettings
from tests.models.small import small_model

SETTINGS = TrainSettings(
    epochs=2,
    optimiser="adamw",
    learning_rate=1e-2,
    schedule="one-cycle",
    warmup=0.25,
    weight_decay=0.01,
    batch_size=4,
    micro_batch_tokens=10_000,
    freeze=[],
    freeze_lower_layers=0,
    unfreeze_every=0,
    discriminative=1.0,
    max_gradient_norm=1.0,
    early_stopping=0,
    precision="auto",
    gradient_checkpointing=False,
    compile=False,
    processes=1,
    seed=1,
)


LORA = LoraSettings(rank=4, alpha=8, dropout=0.1)


def score(predictions: list[str], titles: list[str]) -> dict[str, float]:
    hits = sum(prediction == title for prediction, title in zip(predictions, titles, strict=True)) / len(titles)
    return dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), hits)


def train(
    examples: pd.DataFrame,
    folder: Path,
    family: str = "t5",
    callbacks: tuple[TrainerCallback, ...] = (),
    **settings: object,
) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Curves and weights of a small model that was trained on `examples`; `settings` are in place of `SETTINGS`'."""
    model, inputs = small_model(family, examples)
    chosen = SETTINGS.model_copy(update=settings)
    freeze(model, inputs.family, chosen.freeze, chosen.freeze_lower_layers)
    transformers.set_seed(chosen.seed)
    trained = wrap(model, chosen.lora) if chosen.lora else model
    curves = fit(
        trained,
        inputs,
        examples,
        examples.head(4),
        chosen,
        score=score,
        resume_from=folder / "run",
        callbacks=callbacks,
    )
    return curves, (merge(trained) if chosen.lora else model).state_dict()


class NoDropout(TrainerCallback):
    """Nothing is drawn while the model is trained."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        for module in model.modules():
            for name in ("p", "dropout", "activation_dropout", "attention_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
