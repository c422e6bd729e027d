from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pipeline.errors import Misused, Refused
from pipeline.models.checkpoints import Card, ModelSettings, load_model, open_checkpoint, save_model
from pipeline.models.families import FAMILIES
from pipeline.models.generation import Titler
from pipeline.models.inputs import Inputs
from tests.models.small import GREEDY, lively_model


def _saved(folder: Path, family: str, examples: pd.DataFrame) -> tuple[Titler, Card]:
    model, inputs = lively_model(family, examples)
    card = Card(model="m", family=family, checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    folder.mkdir()
    save_model(folder, model, inputs.tokenizer, card, "float32")
    return Titler(model, inputs, GREEDY), card


def _settings(family: str, folder: Path, max_source_tokens: int = 48) -> ModelSettings:
    return ModelSettings(
        family=family, checkpoint=str(folder), max_source_tokens=max_source_tokens, max_target_tokens=12
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_writes_the_same_titles_when_it_is_read_again(
    family: str, examples: pd.DataFrame, tmp_path: Path
) -> None:
    before, card = _saved(tmp_path / "model", family, examples)
    model, tokenizer, read = load_model(tmp_path / "model")
    inputs = Inputs(FAMILIES[family], tokenizer, max_source_tokens=48, max_target_tokens=12)
    texts = examples["text"].head(5).tolist()
    assert read == card
    assert Titler(model, inputs, GREEDY).best_titles(texts) == before.best_titles(texts)


def test_a_model_folder_holds_safetensors_that_others_may_read(examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "t5", examples)
    weights = tmp_path / "model" / "model.safetensors"
    assert weights.stat().st_mode & 0o044
    assert not [*(tmp_path / "model").glob("*.bin")]


def test_a_local_folder_is_a_checkpoint(examples: pd.DataFrame, tmp_path: Path) -> None:
    before, _ = _saved(tmp_path / "model", "bart", examples)
    settings = _settings("bart", tmp_path / "model")
    model, _ = open_checkpoint(settings, [])
    assert torch.equal(model.lm_head.weight, before.model.lm_head.weight)


class _Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_bin_checkpoint_is_refused_and_does_not_run(examples: pd.DataFrame, tmp_path: Path) -> None:
    titler, _ = _saved(tmp_path / "model", "bart", examples)
    (tmp_path / "model" / "model.safetensors").unlink()
    weights = tmp_path / "model" / "pytorch_model.bin"
    torch.save(titler.model.state_dict(), weights)
    settings = _settings("bart", tmp_path / "model")
    model, _ = open_checkpoint(settings, [])
    assert torch.equal(model.lm_head.weight, titler.model.lm_head.weight)

    torch.save({**titler.model.state_dict(), "more": _Trap(tmp_path / "sprung")}, weights)
    with pytest.raises(Refused, match="holds more than numbers"):
        open_checkpoint(settings, [])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("model_type", ["bart", "homemade"])
def test_code_beside_a_checkpoint_does_not_run(model_type: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "bart", examples)
    (tmp_path / "model" / "homemade.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')", encoding="utf-8")
    classes = {"AutoConfig": "homemade.Config", "AutoModelForSeq2SeqLM": "homemade.Model"}
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "model_type": model_type, "auto_map": classes}), encoding="utf-8")
    settings = _settings("bart", tmp_path / "model")
    with nullcontext() if model_type == "bart" else pytest.raises(Refused, match="is a 'homemade' model"):
        open_checkpoint(settings, [])
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_of_another_family_is_refused(examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "causal", examples)
    settings = _settings("t5", tmp_path / "model")
    with pytest.raises(Refused, match="is a 'llama' model, and family 't5'"):
        open_checkpoint(settings, [])


def test_a_checkpoint_that_would_load_as_another_family_is_refused_too(examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "pegasus", examples)
    settings = _settings("bart", tmp_path / "model")
    with pytest.raises(Refused, match="is a 'pegasus' model, and family 'bart'"):
        open_checkpoint(settings, [])


def test_more_tokens_than_a_checkpoint_takes_are_refused_before_any_work(
    examples: pd.DataFrame, tmp_path: Path
) -> None:
    _saved(tmp_path / "model", "bart", examples)
    settings = _settings("bart", tmp_path / "model", max_source_tokens=5000)
    with pytest.raises(Refused, match="takes 1024 tokens at the most"):
        open_checkpoint(settings, [])


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_model_folder_is_refused(damage: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "t5", examples)
    weights = tmp_path / "model" / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        weights.unlink()
    with pytest.raises(Refused, match="model"):
        load_model(tmp_path / "model")


def test_an_unknown_family_and_a_misspelt_knob_are_both_named(project: Path) -> None:
    params = Path("params.yaml").read_text(encoding="utf-8")
    entry = "  odd:\n    family: t6\n    checkpoint: scratch\n    max_sorce_tokens: 3\n"
    Path("params.yaml").write_text(params.replace("\nmodels:\n", f"\nmodels:\n{entry}"), encoding="utf-8")
    with pytest.raises(Misused, match=r"(?s)models.odd.family.*models.odd.max_sorce_tokens"):
        ModelSettings.read("odd")
