"""Optimisers, learning rates of layer groups, and gradual unfreezing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from pytorch_optimizer import Ranger, ScheduleFreeAdamW
from torch.optim import Adam, AdamW, Optimizer
from transformers import TrainerCallback

from pipeline.models.layer_groups import freeze, group_of
from pipeline.training.optimisers import build_optimiser
from pipeline.training.settings import TrainSettings
from tests.models.small import small_model
from tests.training.small import SETTINGS, train


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "ranger", "schedulefreeadamw"])
def test_every_optimiser_lowers_the_loss(name: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    curves, _ = train(examples, tmp_path, "bart", optimiser=name, schedule="constant")
    assert curves["validation_loss"].iloc[-1] < curves["validation_loss"].iloc[0]


@pytest.mark.parametrize("kind", [Adam, AdamW, Ranger, ScheduleFreeAdamW])
def test_the_setting_selects_the_optimiser(kind: type[Optimizer], examples: pd.DataFrame) -> None:
    model, inputs = small_model("bart", examples)
    chosen = SETTINGS.model_copy(update={"optimiser": kind.__name__.lower()})
    assert type(build_optimiser(model, inputs.family, chosen)) is kind


def test_a_lower_layer_group_learns_more_slowly(examples: pd.DataFrame) -> None:
    model, inputs = small_model("bart", examples)
    optimiser = build_optimiser(model, inputs.family, SETTINGS.model_copy(update={"discriminative": 2.6}))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates: dict[str, set[float]] = {}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            rates.setdefault(group_of(names[id(parameter)], inputs.family), set()).add(group["lr"])
    peak = SETTINGS.learning_rate
    # BART's head is its embedding.
    assert rates == {"decoder": {peak}, "encoder": {peak / 2.6}, "embedding": {peak / 2.6**2}}


def test_only_matrices_have_weight_decay(examples: pd.DataFrame) -> None:
    model, inputs = small_model("bart", examples)
    for group in build_optimiser(model, inputs.family, SETTINGS).param_groups:
        dimensions = {parameter.dim() > 1 for parameter in group["params"]}
        assert dimensions == {group["weight_decay"] > 0}


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_pytorchs_optimisers_use_their_fused_kernel(name: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model("bart", examples)
    assert build_optimiser(model, inputs.family, SETTINGS.model_copy(update={"optimiser": name})).defaults["fused"]


def test_the_optimiser_has_no_frozen_parameters(examples: pd.DataFrame) -> None:
    model, inputs = small_model("bart", examples)
    freeze(model, inputs.family, ["embedding", "encoder"], 1)
    given = [p for group in build_optimiser(model, inputs.family, SETTINGS).param_groups for p in group["params"]]
    assert {id(p) for p in given} == {id(p) for p in model.parameters() if p.requires_grad}


def test_layer_groups_unfreeze_from_the_head_down(examples: pd.DataFrame, tmp_path: Path) -> None:
    seen: list[set[str]] = []

    class Watch(TrainerCallback):
        def on_epoch_end(self, args, state, control, model, **kwargs):
            family = small_model("bart", examples)[1].family
            seen.append({group_of(name, family) for name, p in model.named_parameters() if p.requires_grad})

    _, weights = train(
        examples, tmp_path, "bart", callbacks=(Watch(),), epochs=4, unfreeze_every=2, freeze=["embedding"]
    )
    assert seen == [{"decoder"}, {"decoder"}, {"decoder", "encoder"}, {"decoder", "encoder"}]
    assert torch.equal(weights["model.shared.weight"], small_model("bart", examples)[0].model.shared.weight)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimiser": "schedulefreeadamw", "schedule": "one-cycle"}, "schedule: constant"),
        ({"unfreeze_every": 1, "processes": 2}, "processes: 1"),
        ({"optimiser": "sgdd"}, "adamw"),
    ],
)
def test_incompatible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSettings(**{**SETTINGS.model_dump(), **wrong})
