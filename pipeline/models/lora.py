"""LoRA: two small trained matrices beside each frozen weight, whose product is added to it in the end.

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
    """`lora` of a model's `train:`. Only the adapters are trained then."""

    rank: int = Field(ge=1)  # inner dimension of the two matrices
    alpha: float = Field(gt=0)  # their product counts alpha / rank times
    dropout: float = Field(default=0.0, ge=0, lt=1)  # of what goes into them
    targets: Literal["attention", "all-linear"] | list[str] = "attention"  # which linear layers, or ends of their names


def wrap(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Adapters for `model`, in place: beside the linear layers that `targets` means and that are not frozen.

    Everything else is frozen then. The output layer gets none: most models share its weights with the embedding.

    Raises:
        UsageError: no layer would have one.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_targets(model, settings.targets),
    )
    return get_peft_model(model, config)


def merge(model: PeftModel) -> PreTrainedModel:
    """The model that was wrapped, plain again, its weights now what they and their adapters were together."""
    return model.merge_and_unload()


def _targets(model: PreTrainedModel, targets: str | list[str]) -> list[str]:
    """Names of the linear layers that get an adapter."""
    trainable = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings() and module.weight.requires_grad
    ]
    if targets == "attention":
        # transformers' own naming: in every architecture the modules that attend are of a class `…Attention…`.
        attention = tuple(f"{name}." for name, module in model.named_modules() if "Attention" in type(module).__name__)
        chosen = [name for name in trainable if name.startswith(attention)]
    elif targets == "all-linear":
        chosen = trainable
    else:
        chosen = [name for name in trainable if any(f".{name}".endswith(f".{end}") for end in targets)]
    if not chosen:
        raise UsageError(
            f"lora.targets {targets} fits no linear layer that freeze and freeze_lower_layers leave to train."
        )
    return chosen
