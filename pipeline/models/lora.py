"""LoRA: train two small matrices per frozen weight, whose product is added to the weight at the end.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685.
"""

from __future__ import annotations

from typing import Literal

from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel

from pipeline.errors import UsageError
from pipeline.settings import Settings


class LoraSettings(Settings):
    """`lora` of a model's `train` settings. With it, only adapters train."""

    rank: int = Field(ge=1)  # inner dimension of the two matrices
    alpha: float = Field(gt=0)  # their product is scaled by alpha / rank
    dropout: float = Field(default=0.0, ge=0, lt=1)  # on the adapters' inputs
    targets: Literal["attention", "all-linear"] | list[str] = "attention"  # linear layers, or ends of their names


def wrap(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Add adapters to the unfrozen linear layers that `targets` selects, and freeze all other parameters.

    The model changes in place. Its output layer gets no adapter: most models share its weights with the embedding.

    Raises:
        UsageError: `targets` selects no unfrozen layer.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_select_layers(model, settings.targets),
    )
    return get_peft_model(model, config)


def merge(model: PeftModel) -> PreTrainedModel:
    """Add the adapters' products to the weights, and return the plain model."""
    return model.merge_and_unload()


def _select_layers(model: PreTrainedModel, targets: str | list[str]) -> list[str]:
    """Return the names of the linear layers that get an adapter."""
    trainable = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings() and module.weight.requires_grad
    ]
    if targets == "attention":
        # In all architectures of transformers, the class of an attention module contains "Attention".
        attention = tuple(f"{name}." for name, module in model.named_modules() if "Attention" in type(module).__name__)
        chosen = [name for name in trainable if name.startswith(attention)]
    elif targets == "all-linear":
        chosen = trainable
    else:
        chosen = [name for name in trainable if any(f".{name}".endswith(f".{end}") for end in targets)]
    if not chosen:
        raise UsageError(
            f"lora.targets {targets} fits no linear layer that freeze and freeze_lower_layers leave to train. Change "
            "one of these settings in params.yaml."
        )
    return chosen
