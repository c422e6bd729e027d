from __future__ import annotations

import copy
import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import processors
from transformers import (
    BertConfig,
    BertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.activations import NewGELUActivation

from pipeline.errors import Rejected, UsageError
from pipeline.models.checkpoints import Card, ModelSettings, load_model, open_checkpoint, save_model
from pipeline.models.families import FAMILIES
from pipeline.models.generation import Titler, open_titler
from pipeline.models.inputs import Inputs
from pipeline.models.layer_groups import freeze
from pipeline.training.prepare import prepare
from pipeline.training.settings import TrainSettings
from tests.models.small import GREEDY, lively_model, small_model, titles_after_learning


def _saved(folder: Path, family: str, examples: pd.DataFrame) -> tuple[Titler, Card]:
    model, inputs = lively_model(family, examples)
    card = Card(model="m", family=family, checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    folder.mkdir()
    save_model(folder, model, inputs.tokenizer, card, "float32")
    return Titler(model, inputs, GREEDY), card


def _settings(family: str, folder: Path, **others: int | str) -> ModelSettings:
    return ModelSettings(
        family=family, checkpoint=str(folder), **{"max_source_tokens": 48, "max_target_tokens": 12, **others}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_writes_the_same_titles_after_loading(
    family: str, examples: pd.DataFrame, tmp_path: Path
) -> None:
    before, card = _saved(tmp_path / "model", family, examples)
    model, tokenizer, read = load_model(tmp_path / "model")
    inputs = Inputs(FAMILIES[family], tokenizer, max_source_tokens=48, max_target_tokens=12)
    texts = examples["text"].head(5).tolist()
    assert read == card
    assert Titler(model, inputs, GREEDY).best_titles(texts) == before.best_titles(texts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_tokenizer_gives_the_same_ids_after_loading(
    family: str, examples: pd.DataFrame, tmp_path: Path
) -> None:
    titler, _ = _saved(tmp_path / "model", family, examples)
    _, tokenizer, _ = load_model(tmp_path / "model")
    inputs = Inputs(FAMILIES[family], tokenizer, max_source_tokens=48, max_target_tokens=12)
    for text in [*examples["text"].head(2), "", "Don't (ever) say 'Ünknown λ'!", " two\nlines, 1.5 and  more "]:
        assert inputs.example(text, text) == titler.inputs.example(text, text)


def test_a_checkpoint_with_a_slow_gelu_gives_the_outputs_of_the_library(examples: pd.DataFrame, tmp_path: Path) -> None:
    _, inputs = small_model("t5", examples)
    config = T5Config(
        vocab_size=len(inputs.tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0,
    )  # fmt: skip
    library = T5ForConditionalGeneration(config).eval()
    library.save_pretrained(tmp_path)
    inputs.tokenizer.save_pretrained(tmp_path)
    model, _ = open_checkpoint(_settings("t5", tmp_path), [])
    assert not [each for each in model.modules() if isinstance(each, NewGELUActivation)]
    batch = inputs.training_batch([inputs.example(examples["text"][0], examples["title"][0])])
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(**batch).logits, library(**batch).logits)


def test_other_users_can_read_the_safetensors_of_a_model_folder(examples: pd.DataFrame, tmp_path: Path) -> None:
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
    with pytest.raises(Rejected, match="contains code"):
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
    with nullcontext() if model_type == "bart" else pytest.raises(Rejected, match="is a 'homemade' model"):
        open_checkpoint(settings, [])
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_of_another_family_is_refused(examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "causal", examples)
    settings = _settings("t5", tmp_path / "model")
    with pytest.raises(Rejected, match="is a 'llama' model, but family 't5'"):
        open_checkpoint(settings, [])


def test_a_checkpoint_that_loads_as_another_family_is_refused(examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "pegasus", examples)
    settings = _settings("bart", tmp_path / "model")
    with pytest.raises(Rejected, match="is a 'pegasus' model, but family 'bart'"):
        open_checkpoint(settings, [])


@pytest.mark.parametrize("setting", ["max_source_tokens", "max_target_tokens"])
def test_limits_above_a_checkpoints_positions_are_refused(setting: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "bart", examples)
    open_checkpoint(_settings("bart", tmp_path / "model", **{setting: 1024}), [])
    with pytest.raises(Rejected, match=f"{setting} is 1025, .* takes at most 1024"):
        open_checkpoint(_settings("bart", tmp_path / "model", **{setting: 1025}), [])


def test_a_causal_checkpoint_without_a_chat_template_is_refused(examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "causal", examples)
    (tmp_path / "model" / "chat_template.jinja").unlink()
    with pytest.raises(Rejected, match=r"(?s)model' has no chat template.* '-Instruct' or '-Chat'.* a plain prompt"):
        open_checkpoint(_settings("causal", tmp_path / "model"), [])


@pytest.fixture(params=["", "<s>"], ids=["no-start", "start-token"])
def base_checkpoint(request: pytest.FixtureRequest, examples: pd.DataFrame, tmp_path: Path) -> Path:
    """A small Llama without a chat template. Its tokenizer starts each sequence with the parameter's token, if any."""
    _, inputs = small_model("causal", examples)
    tokenizer = copy.deepcopy(inputs.tokenizer)
    tokenizer.chat_template = None
    if start := request.param:
        tokenizer.add_special_tokens({"bos_token": start})
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, tokenizer.bos_token_id)]
        )
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **size))
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_causal_checkpoint_without_a_chat_template_learns_titles_with_a_plain_prompt(
    base_checkpoint: Path, examples: pd.DataFrame, tmp_path: Path
) -> None:
    settings = _settings("causal", base_checkpoint, prompt="Lecture {1}: {text}\n\nTopic title: ")
    prepared = prepare("m", settings, TrainSettings.read(), [])
    starts = (prepared.inputs.tokenizer.bos_token or "") + "Lecture {1}: we talk about graphs\n\nTopic title:"
    assert prepared.inputs.tokenizer.decode(prepared.inputs.source("we talk about graphs")) == starts
    written, learnt = titles_after_learning(prepared.network, prepared.inputs, examples)
    assert written == learnt
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", prepared.network, prepared.inputs.tokenizer, prepared.card, "float32")
    settings = GREEDY.model_copy(update={"max_new_tokens": 16})
    assert open_titler(tmp_path / "model", settings).best_titles(examples["text"].tolist()[:2]) == learnt


@pytest.mark.parametrize(
    ("family", "prompt", "message"),
    [("t5", "{text} Title:", "is for the family causal"), ("causal", "Title:", r"must contain \{text\} once")],
)
def test_a_plain_prompt_that_cannot_be_used_is_refused(family: str, prompt: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _settings(family, tmp_path, prompt=prompt)


def test_a_causal_checkpoint_without_a_padding_token_writes_the_same_titles(
    examples: pd.DataFrame, tmp_path: Path
) -> None:
    before, _ = _saved(tmp_path / "model", "causal", examples)
    config = tmp_path / "model" / "tokenizer_config.json"
    without = {name: value for name, value in json.loads(config.read_text()).items() if name != "pad_token"}
    config.write_text(json.dumps(without))
    model, tokenizer = open_checkpoint(_settings("causal", tmp_path / "model"), [])
    inputs = Inputs(FAMILIES["causal"], tokenizer, max_source_tokens=48, max_target_tokens=12)
    texts = examples["text"].head(4).tolist()
    assert Titler(model.eval(), inputs, GREEDY).best_titles(texts) == before.best_titles(texts)


def test_prompt_text_and_title_of_a_causal_model_must_fit_together(examples: pd.DataFrame, tmp_path: Path) -> None:
    _, card = _saved(tmp_path / "model", "causal", examples)
    _, tokenizer, _ = load_model(tmp_path / "model")
    prompt = sum(map(len, card.inputs(tokenizer).prompt))
    most = 1024 - prompt - 12
    open_checkpoint(_settings("causal", tmp_path / "model", max_source_tokens=most), [])
    with pytest.raises(
        Rejected,
        match=f"max_source_tokens {most + 1}, max_target_tokens 12 and the prompt's {prompt} tokens add up to 1025, "
        ".* takes at most 1024",
    ):
        open_checkpoint(_settings("causal", tmp_path / "model", max_source_tokens=most + 1), [])


def test_t5_takes_any_number_of_tokens(examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "t5", examples)
    open_checkpoint(_settings("t5", tmp_path / "model", max_source_tokens=50_000, max_target_tokens=50_000), [])


@pytest.fixture
def encoder(examples: pd.DataFrame, tmp_path: Path) -> PreTrainedModel:
    """A small BERT, saved in the folder `encoder`."""
    _, inputs = small_model("encoder-decoder", examples)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=len(inputs.tokenizer), **size))
    model.save_pretrained(tmp_path / "encoder")
    inputs.tokenizer.save_pretrained(tmp_path / "encoder")
    return model


def test_an_encoder_initialises_both_sides_of_a_model(encoder: PreTrainedModel, tmp_path: Path) -> None:
    model, _ = open_checkpoint(_settings("encoder-decoder", tmp_path / "encoder"), [])
    decoder = model.decoder.bert.state_dict()
    for name, weight in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], weight)
        assert name.startswith("pooler") or torch.equal(decoder[name], weight)
    assert torch.equal(model.get_output_embeddings().weight, encoder.get_input_embeddings().weight)
    assert any("crossattention" in name for name in decoder)


def test_the_two_sides_of_a_warm_started_model_have_separate_weights(encoder: PreTrainedModel, tmp_path: Path) -> None:
    model, tokenizer = open_checkpoint(_settings("encoder-decoder", tmp_path / "encoder"), [])
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(1)
    (tmp_path / "model").mkdir()
    card = Card(model="m", family="encoder-decoder", checkpoint="x", max_source_tokens=48, max_target_tokens=12)
    save_model(tmp_path / "model", model, tokenizer, card, "float32")
    again, _ = open_checkpoint(_settings("encoder-decoder", tmp_path / "model"), [])
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_a_model_from_a_packages_encoder_writes_the_titles_that_it_has_learnt(
    encoder: PreTrainedModel, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package := tmp_path / "site" / "encoders").mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "encoder").rename(package / "small")
    monkeypatch.syspath_prepend(package.parent)
    settings = _settings("encoder-decoder", tmp_path).model_copy(update={"checkpoint": "package:encoders/small"})
    model, tokenizer = open_checkpoint(settings, [])
    inputs = Inputs(FAMILIES["encoder-decoder"], tokenizer, max_source_tokens=48, max_target_tokens=12)
    written, learnt = titles_after_learning(model, inputs, examples)
    assert written == learnt


def test_an_encoder_of_another_kind_is_refused(encoder: PreTrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "encoder" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"bert"', '"roberta"'), encoding="utf-8")
    with pytest.raises(
        Rejected, match="is a 'roberta' model, but family 'encoder-decoder' is for encoder-decoder, bert"
    ):
        open_checkpoint(_settings("encoder-decoder", tmp_path / "encoder"), [])


def test_a_decoder_of_another_kind_is_refused(examples: pd.DataFrame, tmp_path: Path) -> None:
    _, inputs = small_model("encoder-decoder", examples)
    vocabulary = {"vocab_size": len(inputs.tokenizer)}
    encoder = BertConfig(**vocabulary, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    decoder = GPT2Config(**vocabulary, n_embd=32, n_layer=1, n_head=2)
    EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)).save_pretrained(tmp_path)
    inputs.tokenizer.save_pretrained(tmp_path)
    model, _ = open_checkpoint(_settings("encoder-decoder", tmp_path), [])
    with pytest.raises(Rejected, match=r"has a parameter 'decoder\.transformer"):
        freeze(model, FAMILIES["encoder-decoder"], ["encoder"], lower_layers=0)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_model_folder_is_refused(damage: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    _saved(tmp_path / "model", "t5", examples)
    weights = tmp_path / "model" / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        weights.unlink()
    with pytest.raises(Rejected, match="model"):
        load_model(tmp_path / "model")


def test_an_unknown_family_and_a_misspelt_setting_are_both_named(project: Path) -> None:
    params = Path("params.yaml").read_text(encoding="utf-8")
    entry = "  odd:\n    family: t6\n    checkpoint: scratch\n    max_sorce_tokens: 3\n"
    Path("params.yaml").write_text(re.sub(r"(?m)^models:.*\n", f"models:\n{entry}", params), encoding="utf-8")
    with pytest.raises(UsageError, match=r"(?s)models.odd.family.*models.odd.max_sorce_tokens"):
        ModelSettings.read("odd")


def test_the_error_for_a_dropped_family_gives_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"xlm-prophetnet is no longer supported: transformers 4 was the last .* families are t5, mt5"
    ):
        _settings("xlm-prophetnet", tmp_path)
