"""Which parameters an optimiser moves, how fast, and when."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from pytorch_optimizer import load_optimizer
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.models.families import GROUPS, Family
from pipeline.models.layers import group_of
from pipeline.training.settings import TrainSettings


def trainable_groups(model: PreTrainedModel, family: Family) -> dict[str, list[nn.Parameter]]:
    """Layer group → its parameters that train; the group nearest to the text first, none that is empty."""
    found: dict[str, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[group_of(name, family)].append(parameter)
    return {group: found[group] for group in GROUPS if group in found}


def build_optimiser(model: PreTrainedModel, family: Family, settings: TrainSettings) -> Optimizer:
    """The optimiser of that name in `pytorch_optimizer`, over all parameters of `model` that train.

    Each layer group learns `discriminative` times as fast as the one below it, the topmost at `learning_rate`: the
    discriminative fine-tuning of Howard and Ruder, 2018: "Universal Language Model Fine-tuning for Text
    Classification". Vectors, which are biases and the scales of norms, do not decay.
    """
    groups = trainable_groups(model, family)
    parameters: list[dict[str, Any]] = []
    for above, group in enumerate(reversed(groups)):
        rate = settings.learning_rate / settings.discriminative**above
        for decays in (True, False):
            chosen = [parameter for parameter in groups[group] if (parameter.dim() > 1) == decays]
            if chosen:
                decay = settings.weight_decay if decays else 0.0
                parameters.append({"params": chosen, "lr": rate, "weight_decay": decay})
    kind = load_optimizer(settings.optimiser)
    # PyTorch's own have a kernel that goes through all parameters at once.
    options = {"fused": True} if kind in (torch.optim.Adam, torch.optim.AdamW) else {}
    return kind(parameters, lr=settings.learning_rate, **options)


class GradualUnfreezing(TrainerCallback):
    """At first only the topmost layer group trains, and after every so many epochs one more, from the head down.

    The gradual unfreezing of Howard and Ruder, 2018: "Universal Language Model Fine-tuning for Text Classification".
    What does not train when this is made never does.
    """

    def __init__(self, model: PreTrainedModel, family: Family, every: int) -> None:
        self._groups = list(reversed(trainable_groups(model, family).values()))
        self._every = every

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A training that goes on within an epoch is past its beginning here.
        thawed = 1 + int(state.epoch or 0) // self._every
        for place, parameters in enumerate(self._groups):
            for parameter in parameters:
                parameter.requires_grad_(place < thawed)
