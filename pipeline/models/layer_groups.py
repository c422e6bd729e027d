"""Assign parameters to layer groups, freeze groups, and count and list parameters."""

from __future__ import annotations

import re
from collections.abc import Collection

import pandas as pd
from torch import nn
from transformers import PreTrainedModel

from pipeline.errors import Rejected, UsageError
from pipeline.models.families import GROUPS, Family


def group_of(parameter: str, family: Family) -> str:
    """Return the layer group of a parameter: the group with the longest prefix of its name.

    Raises:
        Rejected: No group has a prefix of the name, because the checkpoint differs from its family.
    """
    fits = [(len(prefix), group) for group in GROUPS for prefix in family.groups[group] if parameter.startswith(prefix)]
    if not fits:
        raise Rejected(
            f"The checkpoint has a parameter '{parameter}', which belongs to no layer group of family '{family.name}'. "
            "Use another checkpoint of this family."
        )
    return max(fits)[1]


def freeze(model: PreTrainedModel, family: Family, groups: Collection[str], lower_layers: int) -> None:
    """Freeze layer groups, the lower decoder layers, and the parameters that the family never trains.

    Args:
        model: Changed in place: `requires_grad` of all parameters is set.
        family: The model's family.
        groups: Layer groups to freeze.
        lower_layers: Number of decoder layers to freeze, counted from the embedding.

    Raises:
        UsageError: Nothing would be left to train.
        Rejected: The checkpoint differs from its family.
    """
    for name, parameter in model.named_parameters():
        layer = re.match(rf"{re.escape(family.decoder_layers)}\.(\d+)\.", name)
        is_low = layer is not None and int(layer.group(1)) < lower_layers
        is_frozen = is_low or group_of(name, family) in groups or name.startswith(family.never_trained)
        parameter.requires_grad_(not is_frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(
            f"freeze {[*groups]} and freeze_lower_layers {lower_layers} leave nothing of the model to train. Freeze "
            "less in params.yaml."
        )


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Count the numbers in all parameters, or in those that train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def summarise(model: PreTrainedModel, family: Family) -> pd.DataFrame:
    """List all parameter tensors with the columns layer, group, shape, parameters and trainable."""
    rows = [
        (name, group_of(name, family), "×".join(map(str, tensor.shape)), tensor.numel(), tensor.requires_grad)
        for name, tensor in model.named_parameters()
    ]
    return pd.DataFrame(rows, columns=["layer", "group", "shape", "parameters", "trainable"])
