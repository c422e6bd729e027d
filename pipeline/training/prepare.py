"""Prepare a model for its training: open the checkpoint, freeze layers and add adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import transformers
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.models.checkpoints import Card, ModelSettings, open_checkpoint
from pipeline.models.families import get_family
from pipeline.models.inputs import IGNORED, Inputs
from pipeline.models.layer_groups import count_parameters, freeze
from pipeline.models.lora import merge, wrap
from pipeline.training.settings import TrainSettings


@dataclass(frozen=True)
class Prepared:
    """A model ready for training, with its inputs and its card."""

    network: PreTrainedModel
    trained: PreTrainedModel | PeftModel  # the network, or the network with LoRA's adapters
    inputs: Inputs
    card: Card

    def size(self) -> dict[str, int]:
        """Count all parameters, and those that train."""
        return {
            "parameters": count_parameters(self.network),
            "trainable_parameters": count_parameters(self.network, trainable_only=True),
        }

    def merge(self) -> None:
        """Merge adapters into the network's weights after the training."""
        if isinstance(self.trained, PeftModel):
            merge(self.trained)

    def preview(self, examples: pd.DataFrame, rows: int = 4) -> str:
        """Describe a batch of the first examples: tensor shapes, then each decoded source and label sequence."""
        first = examples[:rows]
        chosen = [self.inputs.example(text, title) for text, title in zip(first["text"], first["title"], strict=True)]
        batch = self.inputs.training_batch(chosen)
        lines = [f"{name}: {tuple(value.shape)}" for name, value in batch.items() if isinstance(value, Tensor)]
        decode = self.inputs.tokenizer.decode
        for example in chosen:
            learnt = [token for token in example.labels if token != IGNORED]
            lines += ["", f"source ({len(example.source)} tokens): {decode(example.source)}"]
            lines += [f"label ({len(learnt)} tokens): {decode(learnt)}"]
        return "\n".join(lines) + "\n"


def prepare(model: str, model_settings: ModelSettings, settings: TrainSettings, texts: Sequence[str]) -> Prepared:
    """Prepare a model for its first training step. All random choices are seeded, so the result is always the same.

    Args:
        model: The model's name in `params.yaml`.
        model_settings: The model's entry in `params.yaml`.
        settings: The training's settings.
        texts: Transcripts and titles of the training split, for the tokenizer of a model from scratch.

    Raises:
        Rejected: The checkpoint is unavailable, or does not fit the settings.
        UsageError: All parameters would be frozen, or no layer would get an adapter.
    """
    transformers.set_seed(settings.seed)
    network, tokenizer = open_checkpoint(model_settings, list(texts))
    family = get_family(model_settings.family, model_settings.language)
    freeze(network, family, settings.freeze, settings.freeze_lower_layers)
    trained = wrap(network, settings.lora) if settings.lora else network
    card = Card(model=model, **model_settings.model_dump(include=set(Card.model_fields)))
    return Prepared(network, trained, card.inputs(tokenizer), card)
