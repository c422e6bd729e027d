"""Random checkpoints of real size and the final loss, for all comparisons of Lectern with `Seq2SeqTrainer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
import transformers
from accelerate.utils import send_to_device
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
)

from pipeline.models import scratch
from pipeline.models.checkpoints import open_folder
from pipeline.models.families import Family
from pipeline.models.inputs import IGNORED, Inputs

VOCABULARY = 8000  # tokens that the tokenizer knows; the embedding has the real size


def t5_small(tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return _t5(tokenizer, vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8)


def t5_tiny(tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return _t5(tokenizer, vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)


def _t5(tokenizer: PreTrainedTokenizerBase, **size: int) -> PretrainedConfig:
    return T5Config(
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **size,
    )


def bart_base(tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    size = scratch.ScratchSize(width=768, layers=6, heads=12, vocabulary=VOCABULARY)
    return BartConfig(**{**scratch.bart_config(size, tokenizer).to_diff_dict(), "vocab_size": 50265})


SIZES: dict[str, tuple[str, Callable[[PreTrainedTokenizerBase], PretrainedConfig]]] = {
    "t5-small": ("t5", t5_small),
    "bart-base": ("bart", bart_base),
    "t5-tiny": ("t5", t5_tiny),
}
"""For each model its family, and a function from a tokenizer to its configuration."""


def write_random_checkpoint(folder: Path, model: str, texts: Sequence[str]) -> None:
    """Write random weights, and BART's kind of tokenizer, learnt from the texts: T5's kind needs SentencePiece."""
    _, new_config = SIZES[model]
    tokenizer = scratch.bart_tokenizer(list(texts), VOCABULARY)
    transformers.set_seed(1)
    AutoModelForSeq2SeqLM.from_config(new_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def open_checkpoint(side: str, folder: Path, family: Family) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a checkpoint in float32, as the peer or as Lectern does."""
    if side == "peer":
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(folder)
    return open_folder(folder, family)


@torch.inference_mode()
def loss_of(model: PreTrainedModel, inputs: Inputs, examples: pd.DataFrame) -> float:
    """Compute the mean loss of the title tokens, text by text."""
    total, tokens = 0.0, 0
    for text, title in zip(examples["text"], examples["title"], strict=True):
        batch = inputs.training_batch([inputs.example(text, title)])
        learnt = int((batch["labels"] != IGNORED).sum())
        total += model.eval()(**send_to_device(batch, model.device)).loss.item() * learnt
        tokens += learnt
    return total / tokens
