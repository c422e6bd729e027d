"""Read T5 from the 8-bit ONNX graphs of its encoder and decoder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import T5Config, T5ForConditionalGeneration

from pipeline.errors import Rejected
from pipeline.models.checkpoints import ModelSettings, open_checkpoint
from pipeline.models.onnx_checkpoints import convert_onnx

WORDS = ["<pad>", "</s>", "<unk>", *(f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
UNSIGNED, SIGNED = np.uint8, np.int8


def small_t5(*, gated: bool = True) -> T5ForConditionalGeneration:
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=len(WORDS),
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=2,
        relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    config.tie_word_embeddings = False
    model = T5ForConditionalGeneration(config)
    for stack in (model.encoder, model.decoder):
        stack.embed_tokens.weight = model.shared.weight
    return model.eval()


def quantized(values: np.ndarray, kind: type) -> tuple[np.ndarray, np.float32, np.integer]:
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    scale = np.float32(max(high - low, 1e-6) / 255)
    first = np.iinfo(kind).min
    zero = kind(np.clip(round(first - low / scale), first, np.iinfo(kind).max))
    integers = np.clip(np.round(values / scale) + zero, first, np.iinfo(kind).max).astype(kind)
    return integers, scale, zero


def write_graph(file: Path, weights: Mapping[str, torch.Tensor], ours: str, theirs: str) -> dict[str, torch.Tensor]:
    """Write a graph as ONNX Runtime's dynamic quantization leaves it. Return the weights that it stores."""
    nodes, tensors, stored = [], [], {}

    def add(name: str, values: np.ndarray, kind: type) -> np.ndarray:
        integers, scale, zero = quantized(values, kind)
        for part, array in (("quantized", integers), ("scale", scale), ("zero_point", zero)):
            tensors.append(numpy_helper.from_array(np.asarray(array), f"{name}_{part}"))
        return (integers.astype(np.float32) - np.float32(zero)) * scale

    for number, (name, weight) in enumerate(weights.items()):
        values = weight.detach().numpy()
        module = ours + name.removeprefix(theirs)
        if values.ndim == 1:
            tensors.append(numpy_helper.from_array(values, module))
            stored[name] = weight
        elif "embed" in name or "shared" in name or "relative_attention_bias" in name:
            stored[name] = torch.from_numpy(add(module, values, UNSIGNED))
        else:
            matrix = f"onnx::MatMul_{number}"
            stored[name] = torch.from_numpy(add(matrix, np.ascontiguousarray(values.T), SIGNED).T.copy())
            path = "/" + module.removesuffix(".weight").replace(".layer.", "/layer.").replace("enc.", "enc/", 1)
            node = path.replace(".SelfAttention.", "/SelfAttention/") + "/MatMul_quant"
            nodes.append(
                helper.make_node("MatMulInteger", ["x", f"{matrix}_quantized", "a", "b"], [f"y{number}"], name=node)
            )
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.UINT8, None)], [], tensors
    )
    onnx.save(helper.make_model(graph), file)
    return stored


def write_folder(folder: Path, model: T5ForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Write both graphs and the tokenizer. Return the weights that the graphs store."""
    folder.mkdir(parents=True)
    weights = model.state_dict()
    encoder = {name: weight for name, weight in weights.items() if name.startswith("encoder.")}
    decoder = {
        name: weight
        for name, weight in weights.items()
        if not name.startswith("encoder.") and name != "decoder.embed_tokens.weight"
    }
    stored = write_graph(folder / "encoder.onnx", encoder, "enc.", "encoder.")
    stored |= write_graph(folder / "decoder.onnx", decoder, "m.", "")
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in WORDS], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(WORDS[:3])
    tokenizer.save(str(folder / "tokenizer.json"))
    return stored


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that will carry the graphs; the working directory is a project folder."""
    package = tmp_path / "site" / "carrier"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('never imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(package.parent)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return package


def settings(family: str = "t5") -> ModelSettings:
    return ModelSettings(family=family, checkpoint="package:carrier/t5", max_source_tokens=48, max_target_tokens=12)


@pytest.mark.parametrize("gated", [True, False])
def test_graphs_give_the_weights_they_store(package: Path, gated: bool) -> None:
    stored = write_folder(package / "t5", small_t5(gated=gated))
    model, tokenizer = open_checkpoint(settings(), [])
    for name, weight in stored.items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=0, atol=0)
    assert tokenizer("a b z")["input_ids"] == [3, 4, 28, 1]
    assert model.config.num_decoder_layers == 3


def test_head_stays_apart_from_the_embedding_when_the_model_is_saved_again(package: Path, tmp_path: Path) -> None:
    write_folder(package / "t5", small_t5())
    model, _ = open_checkpoint(settings(), [])
    tokens = torch.tensor([[3, 4, 5, 1]])
    before = model.eval()(input_ids=tokens, decoder_input_ids=tokens).logits
    model.save_pretrained(tmp_path / "again")
    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "again").eval()
    after = again(input_ids=tokens, decoder_input_ids=tokens).logits
    torch.testing.assert_close(after, before)  # the library computes the GELU in other steps
    assert not torch.equal(again.lm_head.weight, again.shared.weight)


def test_graphs_are_converted_once_until_a_file_changes(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pipeline.models.onnx_checkpoints")
    write_folder(package / "t5", small_t5())
    first = convert_onnx(package / "t5")
    assert convert_onnx(package / "t5") == first
    tokenizer = json.loads((package / "t5" / "tokenizer.json").read_text(encoding="utf-8"))
    (package / "t5" / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1), encoding="utf-8")
    assert convert_onnx(package / "t5") != first
    assert [record.message for record in caplog.records] == ["Converting t5"] * 2


@pytest.mark.parametrize("file", ["encoder.onnx", "decoder.onnx"])
def test_damaged_graph_is_refused_and_leaves_nothing_behind(package: Path, file: str) -> None:
    write_folder(package / "t5", small_t5())
    whole = (package / "t5" / file).read_bytes()
    (package / "t5" / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Rejected, match="'package:carrier/t5' cannot be opened"):
        open_checkpoint(settings(), [])
    assert [path for path in Path(".lectern/converted").iterdir() if path.suffix != ".lock"] == []


def test_graphs_of_another_architecture_are_refused(package: Path) -> None:
    write_folder(package / "t5", small_t5())
    write_graph(package / "t5" / "decoder.onnx", {"h.0.attn.weight": torch.ones(4, 4)}, "m.", "")
    with pytest.raises(Rejected, match=r"not those of a T5 model: they have no weight 'shared.weight'"):
        open_checkpoint(settings(), [])


def test_family_other_than_t5_is_refused(package: Path) -> None:
    write_folder(package / "t5", small_t5())
    with pytest.raises(Rejected, match="is a 't5' model, but family 'bart'"):
        open_checkpoint(settings("bart"), [])
