"""Build optimisers with a learning rate per layer group, and unfreeze layer groups one by one."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.models.families import GROUPS, Family
from pipeline.models.layer_groups import group_of
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

_OF_TORCH: dict[str, Callable[..., Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def trainable_groups(model: PreTrainedModel, family: Family) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters by layer group, from the embedding to the head, without empty groups."""
    groups: dict[str, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[group_of(name, family)].append(parameter)
    return {group: groups[group] for group in GROUPS if group in groups}


def build_optimiser(model: PreTrainedModel, family: Family, settings: TrainSettings) -> Optimizer:
    """Build the optimiser that the settings name, of PyTorch or `pytorch_optimizer`, for all trainable parameters.

    The topmost layer group has the rate `learning_rate`, and each group below has the rate of the group above divided
    by `discriminative`. This is the discriminative fine-tuning of Howard and Ruder, "Universal Language Model
    Fine-tuning for Text Classification", 2018, arXiv:1801.06146. Weight decay applies to matrices, but not to biases
    and scales of norms.
    """
    groups = trainable_groups(model, family)
    parameters: list[dict[str, Any]] = []
    for groups_above, group in enumerate(reversed(groups)):
        rate = settings.learning_rate / settings.discriminative**groups_above
        for decays in (True, False):
            chosen = [parameter for parameter in groups[group] if (parameter.dim() > 1) == decays]
            if chosen:
                decay = settings.weight_decay if decays else 0.0
                parameters.append({"params": chosen, "lr": rate, "weight_decay": decay})
    if settings.optimiser in _OF_TORCH:
        # One kernel for all parameters at once.
        return _OF_TORCH[settings.optimiser](parameters, lr=settings.learning_rate, fused=True)
    from pytorch_optimizer import load_optimizer  # hundreds of optimisers, which most trainings do without

    return load_optimizer(settings.optimiser)(parameters, lr=settings.learning_rate)


class GradualUnfreezing(TrainerCallback):
    """Train the topmost layer group first, and unfreeze the next lower group every few epochs.

    This is the gradual unfreezing of Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification",
    2018, arXiv:1801.06146. Parameters that are frozen from the start stay frozen. A warning names layer groups that
    the training ends too early to unfreeze.

    Args:
        model: The model.
        family: The model's family.
        every: Epochs between two groups.
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
        """Return the layer groups that are still frozen in an epoch, counted from 0."""
        return list(self._groups)[1 + epoch // self._every :]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A fraction if a training resumes in the middle of an epoch.
        frozen = self._frozen_in(int(state.epoch or 0))
        for group, parameters in self._groups.items():
            for parameter in parameters:
                parameter.requires_grad_(group not in frozen)
