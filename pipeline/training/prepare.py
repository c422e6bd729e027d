"""From settings to a model that is ready to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import transformers
from peft import PeftModel
from transformers import PreTrainedModel

from pipeline.models.checkpoints import Card, ModelSettings, open_checkpoint
from pipeline.models.families import family_in
from pipeline.models.inputs import Inputs
from pipeline.models.layers import count_parameters, freeze
from pipeline.models.lora import merge, wrap
from pipeline.training.settings import TrainSettings


@dataclass(frozen=True)
class Prepared:
    """A model with the layers frozen that its settings name, and what feeds it."""

    network: PreTrainedModel
    trained: PreTrainedModel | PeftModel  # the same, or with LoRA's adapters around it
    inputs: Inputs
    card: Card

    def size(self) -> dict[str, int]:
        """How many parameters there are, and how many of them train."""
        return {
            "parameters": count_parameters(self.network),
            "trainable_parameters": count_parameters(self.network, trainable_only=True),
        }

    def merge(self) -> None:
        """Makes `network` plain again once it is trained: what adapters have learnt becomes part of its weights."""
        if isinstance(self.trained, PeftModel):
            merge(self.trained)


def prepare(model: str, model_settings: ModelSettings, settings: TrainSettings, texts: Sequence[str]) -> Prepared:
    """The model named `model` as it is before its first step: the same each time, since all that is drawn is seeded.

    Args:
        texts: what the tokenizer of a model from scratch is trained on.

    Raises:
        Rejected: its checkpoint cannot be had, or does not fit the settings.
        UsageError: nothing of it would be left to train.
    """
    transformers.set_seed(settings.seed)
    network, tokenizer = open_checkpoint(model_settings, list(texts))
    family = family_in(model_settings.family, model_settings.language)
    freeze(network, family, settings.freeze, settings.freeze_lower_layers)
    trained = wrap(network, settings.lora) if settings.lora else network
    card = Card(model=model, **model_settings.model_dump(include=set(Card.model_fields)))
    inputs = card.inputs(tokenizer)
    return Prepared(network, trained, inputs, card)
