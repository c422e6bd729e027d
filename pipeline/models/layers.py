"""Layer groups: which parameters a model trains, and a summary of all it has."""

from __future__ import annotations

import re

import pandas as pd
from torch import nn
from transformers import PreTrainedModel

from pipeline.errors import Rejected, UsageError
from pipeline.models.families import GROUPS, Family


def group_of(parameter: str, family: Family) -> str:
    """The layer group of the parameter of that name: the one whose prefix fits it longest.

    Raises:
        Rejected: the model is built otherwise than its family.
    """
    fits = [(len(prefix), group) for group in GROUPS for prefix in family.groups[group] if parameter.startswith(prefix)]
    if not fits:
        raise Rejected(f"Family '{family.name}' has no layer group for the parameter '{parameter}' of this checkpoint.")
    return max(fits)[1]


def freeze(model: PreTrainedModel, family: Family, groups: list[str], lower_layers: int) -> None:
    """Leaves as they are: all parameters of `groups`, the decoder layers below `lower_layers`, and what never trains.

    Raises:
        UsageError: nothing would be left to train.
        Rejected: the model is built otherwise than its family.
    """
    for name, parameter in model.named_parameters():
        layer = re.match(rf"{re.escape(family.decoder_layers)}\.(\d+)\.", name)
        is_low = layer is not None and int(layer.group(1)) < lower_layers
        is_frozen = is_low or group_of(name, family) in groups or name.startswith(family.never_trained)
        parameter.requires_grad_(not is_frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"freeze {groups} and freeze_lower_layers {lower_layers} leave nothing of the model to train.")


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def summarise(model: PreTrainedModel, family: Family) -> pd.DataFrame:
    """One row a parameter tensor: layer, group, shape, parameters, trainable."""
    rows = [
        (name, group_of(name, family), "×".join(map(str, tensor.shape)), tensor.numel(), tensor.requires_grad)
        for name, tensor in model.named_parameters()
    ]
    return pd.DataFrame(rows, columns=["layer", "group", "shape", "parameters", "trainable"])
