from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import Rejected
from pipeline.models.checkpoints import ModelSettings, convert_gguf, open_checkpoint

WIDTH, LAYERS, HEADS = 64, 2, 2
TOKENS = ["<|im_start|>", "<|im_end|>", "Ġ", *"abcdefghijklmnopqrstuvwxyz", "th", "Ġth"]
MERGES = ["t h", "Ġ th"]


def _write_gguf(path: Path, seed: int = 1) -> Path:
    """A small Llama with 4-bit weights and a byte-level tokenizer."""
    draw = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 2))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}")

    def add(name: str, *shape: int) -> None:
        values = draw.normal(size=shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(TOKENS), WIDTH)
    add("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate.weight", 2 * WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_up.weight", 2 * WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, 2 * WIDTH)
        add(f"blk.{layer}.attn_norm.weight", WIDTH)
        add(f"blk.{layer}.ffn_norm.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries a GGUF file, and a project folder as the working directory."""
    package = tmp_path / "site" / "carrier"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('never imported')", encoding="utf-8")
    _write_gguf(package / "small.gguf")
    monkeypatch.syspath_prepend(package.parent)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return package


def _settings(family: str = "causal") -> ModelSettings:
    checkpoint = "package:carrier/small.gguf"
    return ModelSettings(family=family, checkpoint=checkpoint, max_source_tokens=48, max_target_tokens=12)


def test_a_converted_file_gives_the_weights_and_tokens_that_it_holds(package: Path) -> None:
    held = AutoModelForCausalLM.from_pretrained(package, gguf_file="small.gguf", dtype=torch.float32)
    tokens = AutoTokenizer.from_pretrained(package, gguf_file="small.gguf")
    model, tokenizer = open_checkpoint(_settings(), [])
    assert model.state_dict().keys() == held.state_dict().keys()
    assert all(torch.equal(weight, held.state_dict()[name]) for name, weight in model.state_dict().items())
    text = "that thing <|im_end|> math"
    assert tokenizer(text)["input_ids"] == tokens(text)["input_ids"]
    messages = [{"role": "user", "content": text}]
    chats = [each.apply_chat_template(messages, tokenize=False) for each in (tokenizer, tokens)]
    assert chats[0] == chats[1] == f"<|im_start|>{text}<|im_end|>"


def test_concurrent_readers_convert_a_file_once(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pipeline.models.checkpoints")
    with ThreadPoolExecutor(2) as pool:
        folders = [*pool.map(lambda _: convert_gguf(package / "small.gguf", AutoModelForCausalLM), range(3))]
    assert len({*folders}) == 1
    assert [record.message for record in caplog.records] == ["Converting small.gguf"]


def test_a_changed_file_is_converted_again(package: Path) -> None:
    before, _ = open_checkpoint(_settings(), [])
    _write_gguf(package / "small.gguf", seed=2)
    after, _ = open_checkpoint(_settings(), [])
    assert not torch.equal(before.model.embed_tokens.weight, after.model.embed_tokens.weight)


def test_a_failed_conversion_leaves_no_folder(package: Path) -> None:
    whole = (package / "small.gguf").read_bytes()
    (package / "small.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Rejected, match=r"'package:carrier/small.gguf' cannot be opened"):
        open_checkpoint(_settings(), [])
    assert [path for path in Path(".lectern/converted").iterdir() if path.suffix != ".lock"] == []


def test_a_gguf_file_of_another_family_is_refused(package: Path) -> None:
    with pytest.raises(Rejected, match=r"small.gguf' cannot be opened as a model of family 't5': .*Llama"):
        open_checkpoint(_settings("t5"), [])
