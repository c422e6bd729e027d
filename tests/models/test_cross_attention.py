from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from pipeline.models.cross_attention import states_instead_of_keys
from pipeline.models.families import FAMILIES
from pipeline.models.lora import LoraSettings, wrap
from tests.models.small import lively_model, small_model

ABSORBING = [name for name, family in FAMILIES.items() if family.cross_attention]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_title_learns_the_same_from_states_as_from_keys(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))  # biases too, which begin as zeros
    batch = inputs.training_batch(
        [inputs.example(*pair) for pair in zip(examples["text"], examples["title"], strict=True)]
    )
    plain_loss, plain = _learn(model.eval(), batch), _gradients(model)
    with states_instead_of_keys(model, FAMILIES[family]):
        loss = _learn(model, batch)
    gradients = _gradients(model)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert gradients.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ABSORBING)
def test_a_short_title_costs_less_from_states(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples)
    text = " ".join(examples["text"])
    batch = inputs.training_batch([inputs.example(text, "Trees")])
    with FlopCounterMode(display=False) as plain:
        model(**batch, use_cache=False)
    with states_instead_of_keys(model, FAMILIES[family]), FlopCounterMode(display=False) as cheap:
        model(**batch, use_cache=False)
    assert cheap.get_total_flops() < plain.get_total_flops()


@pytest.mark.parametrize("family", ABSORBING)
def test_the_model_is_as_it_was_after_the_block(family: str, examples: pd.DataFrame) -> None:
    model, _ = small_model(family, examples)
    before = [(name, type(module)) for name, module in model.named_modules()]
    with pytest.raises(KeyboardInterrupt), states_instead_of_keys(model, FAMILIES[family]):
        raise KeyboardInterrupt
    assert [(name, type(module)) for name, module in model.named_modules()] == before


def test_adapters_on_keys_and_values_are_not_left_out(examples: pd.DataFrame) -> None:
    model, inputs = small_model("t5", examples)
    wrap(model, LoraSettings(rank=4, alpha=8, dropout=0.0, targets="attention"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    batch = inputs.training_batch(
        [inputs.example(*pair) for pair in zip(examples["text"], examples["title"], strict=True)]
    )
    plain_loss = _learn(model.eval(), batch)
    with states_instead_of_keys(model, FAMILIES["t5"]):
        loss = _learn(model, batch)
    assert loss == pytest.approx(plain_loss, rel=1e-5)


def _learn(model: PreTrainedModel, batch: dict[str, Tensor]) -> float:
    """The loss; leaves the gradients."""
    model.zero_grad()
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    return loss.item()


def _gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}
