from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.errors import UsageError
from pipeline.models.checkpoints import Card, load_model, save_model
from pipeline.models.families import FAMILIES
from pipeline.models.generation import Titler
from pipeline.models.inputs import Inputs
from pipeline.models.layer_groups import count_parameters, freeze, group_of, summarise
from pipeline.models.lora import LoraSettings, merge, wrap
from tests.models.small import GREEDY, small_model

RANK = 2
SETTINGS = LoraSettings(rank=RANK, alpha=4)


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def _batch(inputs: Inputs, examples: pd.DataFrame) -> dict[str, Tensor | int]:
    return inputs.training_batch([inputs.example(*row) for row in examples[["text", "title"]].head(4).to_numpy()])


def _step(model: PeftModel, batch: dict[str, Tensor | int], steps: int = 1) -> None:
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()


def _adapted(model: PreTrainedModel) -> set[str]:
    """The layers that have an adapter."""
    return {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}


@pytest.mark.slow
def test_only_adapters_are_trained_and_a_step_lowers_the_loss(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    batch = _batch(inputs, examples)
    adapted = wrap(model, SETTINGS).eval()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if ".lora_" in name
    }
    first = adapted(**batch).loss
    _step(adapted, batch)
    assert adapted(**batch).loss < first
    after = {name.replace(".base_layer", ""): weight for name, weight in model.named_parameters()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.slow
def test_the_merged_model_is_plain_and_gives_the_adapted_models_logits(
    family: str, examples: pd.DataFrame, tmp_path: Path
) -> None:
    model, inputs = small_model(family, examples)
    plain, names = type(model), model.state_dict().keys()
    batch = _batch(inputs, examples)
    adapted = wrap(model, SETTINGS)
    _step(adapted, batch, steps=3)
    expected = adapted.eval()(**batch).logits
    merged = merge(adapted)
    assert merged is model
    assert type(merged) is plain
    assert merged.state_dict().keys() == names
    torch.testing.assert_close(merged(**batch).logits, expected, rtol=1e-4, atol=1e-5)

    card = Card(model="m", family=family, checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    save_model(tmp_path, merged, inputs.tokenizer, card, "float32")
    assert not [*tmp_path.glob("adapter*")]
    read, _, _ = load_model(tmp_path)
    torch.testing.assert_close(read(**batch).logits, expected, rtol=1e-4, atol=1e-5)


def test_every_attention_of_a_family_is_adapted_and_nothing_else(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    wrap(model, SETTINGS)
    layers = _adapted(model)
    assert {group_of(name, inputs.family) for name in layers} == {"encoder", "decoder"} - (
        {"encoder"} if inputs.family.causal else set()
    )
    # Query, key, value and output, in two layers of each of encoder self-, decoder self- and cross-attention.
    assert len(layers) >= 4 * 2 * (1 if inputs.family.causal else 3)
    assert all("attn" in name.lower() or "attention" in name.lower() for name in layers)


def test_frozen_layers_get_no_adapter(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    freeze(model, inputs.family, ["embedding", "encoder"], lower_layers=1)
    wrap(model, LoraSettings(rank=RANK, alpha=4, targets="all-linear"))
    layers = _adapted(model)
    assert layers
    assert not [name for name in layers if name.startswith(f"{inputs.family.decoder_layers}.0.")]
    assert {group_of(name, inputs.family) for name in layers} <= {"decoder", "head"}


def test_all_linear_layers_but_the_output_are_adapted(examples: pd.DataFrame) -> None:
    model, _ = small_model("bart", examples)
    wrap(model, LoraSettings(rank=RANK, alpha=4, targets="all-linear"))
    ends = {name.rpartition(".")[2] for name in _adapted(model)}
    assert ends == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}


def test_layers_are_chosen_by_the_ends_of_their_names(examples: pd.DataFrame) -> None:
    model, _ = small_model("bart", examples)
    wrap(model, LoraSettings(rank=RANK, alpha=4, targets=["encoder_attn.q_proj", "fc2"]))
    expected = {f"model.decoder.layers.{i}.{end}" for i in (0, 1) for end in ("encoder_attn.q_proj", "fc2")}
    assert _adapted(model) == expected | {f"model.encoder.layers.{i}.fc2" for i in (0, 1)}


def test_targets_that_fit_no_layer_are_refused(examples: pd.DataFrame) -> None:
    model, inputs = small_model("t5", examples)
    freeze(model, inputs.family, ["decoder"], lower_layers=0)
    with pytest.raises(UsageError, match=r"lora\.targets \['EncDecAttention.q'\] fits no linear layer"):
        wrap(model, LoraSettings(rank=RANK, alpha=4, targets=["EncDecAttention.q"]))


def test_the_summary_and_the_count_show_the_adapters(examples: pd.DataFrame) -> None:
    model, inputs = small_model("causal", examples)
    whole = count_parameters(model)
    wrap(model, SETTINGS)
    # Two layers, four square attention weights of width 32 each.
    assert count_parameters(model, trainable_only=True) == 2 * 4 * 2 * 32 * RANK
    summary = summarise(model, inputs.family)
    assert summary["parameters"].sum() == count_parameters(model) == whole + 2 * 4 * 2 * 32 * RANK
    assert set(summary[summary["trainable"]]["group"]) == {"decoder"}


def test_dropout_changes_training_only(examples: pd.DataFrame) -> None:
    model, inputs = small_model("causal", examples)
    batch = _batch(inputs, examples)
    adapted = wrap(model, LoraSettings(rank=RANK, alpha=4, dropout=0.5))
    _step(adapted, batch)
    assert adapted.train()(**batch).loss != adapted(**batch).loss
    assert adapted.eval()(**batch).loss == adapted(**batch).loss


@pytest.mark.slow
def test_a_merged_model_is_read_and_used_without_peft(examples: pd.DataFrame, tmp_path: Path) -> None:
    model, inputs = small_model("causal", examples)
    adapted = wrap(model, SETTINGS)
    _step(adapted, _batch(inputs, examples))
    card = Card(model="m", family="causal", checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    save_model(tmp_path, merge(adapted), inputs.tokenizer, card, "float32")
    text = examples["text"][0]
    script = f"""
import sys
sys.modules["peft"] = None
from pathlib import Path
from pipeline.models.generation import GenerateSettings, open_titler
settings = GenerateSettings.model_validate_json({GREEDY.model_dump_json()!r})
print(open_titler(Path({str(tmp_path)!r}), settings).best_titles([{text!r}])[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Titler(model.eval(), inputs, GREEDY).best_titles([text])[0].strip()
