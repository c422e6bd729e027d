"""Which parameters an optimiser moves, how fast, and when."""

from __future__ import annotations

import logging
import math
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

log = logging.getLogger(__name__)


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
    """Train the topmost layer group first, and after every so many epochs one more, from the head down.

    The gradual unfreezing of Howard and Ruder, 2018: "Universal Language Model Fine-tuning for Text Classification".
    Parameters that are frozen when this is made stay frozen. Layer groups that never get their turn are warned of.
    """

    def __init__(self, model: PreTrainedModel, family: Family, every: int) -> None:
        self._groups = dict(reversed(trainable_groups(model, family).items()))
        self._every = every

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if frozen := self._frozen_in(int(args.num_train_epochs) - 1):
            log.warning(
                "With epochs %d and unfreeze_every %d, these layers never train: %s. Raise epochs or lower "
                "unfreeze_every in params.yaml.",
                args.num_train_epochs,
                self._every,
                ", ".join(frozen),
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        epochs = math.ceil(state.epoch)
        if epochs < args.num_train_epochs and (frozen := self._frozen_in(epochs - 1)):
            log.warning(
                "The training stopped early, after epoch %d, before these layers trained: %s. Raise early_stopping "
                "or lower unfreeze_every in params.yaml.",
                epochs,
                ", ".join(frozen),
            )

    def _frozen_in(self, epoch: int) -> list[str]:
        """The layer groups that do not train yet in that epoch, counted from 0."""
        return list(self._groups)[1 + epoch // self._every :]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A training that resumes within an epoch is past its beginning here.
        frozen = self._frozen_in(int(state.epoch or 0))
        for group, parameters in self._groups.items():
            for parameter in parameters:
                parameter.requires_grad_(group not in frozen)
