"""ONNX checkpoints of T5: 8-bit encoder and decoder graphs, converted once to a folder that transformers opens.

The graphs are those that `torch.onnx` exports and ONNX Runtime's dynamic quantization rewrites:

- A weight W is stored as integers Q with one scale s and one zero point z per tensor; W = s * (Q - z).
- Embeddings, attention biases and norms keep the names of their modules.
- A linear layer's weight has a generated name and is transposed. The node that uses it is named after the module.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration

from pipeline.files import made_once
from pipeline.paths import CONVERTED

if TYPE_CHECKING:
    import onnx

ENCODER, DECODER, TOKENIZER = "encoder.onnx", "decoder.onnx", "tokenizer.json"

_LINEAR_NODE = "MatMulInteger"
_QUANTIZED = "_quantized"
_PREFIXES = {ENCODER: ("enc.", "encoder."), DECODER: ("m.", "")}
"""For each graph, the root of its module names and the root of the same modules in T5."""

log = logging.getLogger(__name__)


def is_onnx_folder(path: Path) -> bool:
    """Return whether `path` is a folder with the ONNX graphs of an encoder and a decoder."""
    return all((path / name).is_file() for name in (ENCODER, DECODER, TOKENIZER))


def convert_onnx(path: Path) -> Path:
    """Convert the ONNX graphs in `path` to a folder that transformers opens, with weights in float32.

    The folder is kept in `.lectern/converted` and shared by all processes, for as long as the files and the version of
    transformers stay the same.

    Raises:
        ValueError: the graphs are not those of a T5 model, or a weight is missing.
    """
    digest = hashlib.sha256()
    for name in (ENCODER, DECODER, TOKENIZER):
        with (path / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    folder = CONVERTED / f"{path.name}-{digest.hexdigest()[:16]}-{transformers.__version__}"
    return made_once(folder, lambda aside: _convert(path, aside))


def _convert(path: Path, folder: Path) -> None:
    log.info("Converting %s", path.name)
    weights = {**dict(_weights(path / ENCODER)), **dict(_weights(path / DECODER))}
    try:
        config = _config(weights)
    except KeyError as missing:
        raise ValueError(f"its ONNX graphs are not those of a T5 model: they have no weight {missing}") from None
    model = T5ForConditionalGeneration(config)
    model.load_state_dict(_completed(weights, config))
    model.save_pretrained(folder)
    (folder / TOKENIZER).write_bytes((path / TOKENIZER).read_bytes())
    tokenizer = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def _weights(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each weight of a graph with its name in T5."""
    import onnx  # only needed once per checkpoint

    graph = onnx.load(file).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    linear = {
        node.input[1]: node.name.strip("/").removesuffix("/MatMul_quant").replace("/", ".")
        for node in graph.node
        if node.op_type == _LINEAR_NODE
    }
    ours, theirs = _PREFIXES[file.name]
    for name in tensors:
        stem = name.removesuffix(_QUANTIZED)
        if name in linear:
            yield linear[name].replace(ours, theirs, 1) + ".weight", _values(tensors, name).T.contiguous()
        elif stem.startswith(ours) and stem.endswith(".weight"):
            yield stem.replace(ours, theirs, 1), _values(tensors, name)


def _values(tensors: dict[str, onnx.TensorProto], name: str) -> torch.Tensor:
    from onnx.numpy_helper import to_array

    values = to_array(tensors[name]).astype(np.float32)
    if name.endswith(_QUANTIZED):
        stem = name.removesuffix(_QUANTIZED)
        scale, zero = (to_array(tensors[f"{stem}_{part}"]).astype(np.float32) for part in ("scale", "zero_point"))
        values = (values - zero) * scale
    return torch.from_numpy(np.array(values, dtype=np.float32))


def _config(weights: dict[str, torch.Tensor]) -> T5Config:
    """Derive the configuration from the shapes of the weights."""
    attention, feed_forward = "block.0.layer.0.SelfAttention", "encoder.block.0.layer.1.DenseReluDense"
    vocabulary, width = weights["shared.weight"].shape
    buckets, heads = weights[f"encoder.{attention}.relative_attention_bias.weight"].shape
    gated = f"{feed_forward}.wi_0.weight" in weights
    tied = "lm_head.weight" not in weights
    config = T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=weights[f"encoder.{attention}.q.weight"].shape[0] // heads,
        d_ff=weights[f"{feed_forward}.wo.weight"].shape[1],
        num_layers=_layers(weights, "encoder"),
        num_decoder_layers=_layers(weights, "decoder"),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
    )
    config.tie_word_embeddings = tied  # transformers keeps only the scaling that goes with it, and ties every T5
    return config


def _layers(weights: dict[str, torch.Tensor], stack: str) -> int:
    return len({name.split(".")[2] for name in weights if name.startswith(f"{stack}.block.")})


def _completed(weights: dict[str, torch.Tensor], config: T5Config) -> dict[str, torch.Tensor]:
    """Add the names under which T5 keeps the shared embedding a second time."""
    shared = weights["shared.weight"]
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    if config.tie_word_embeddings:
        names.append("lm_head.weight")
    return {**weights, **dict.fromkeys(names, shared)}
