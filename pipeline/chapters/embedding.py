"""What passages mean, as vectors of a sentence encoder such as MiniLM (Reimers & Gurevych, 2019: "Sentence-BERT")."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from pipeline.errors import Rejected
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.device import inference_device

_LONGEST_TOKENS = 256  # as MiniLM was trained
_PASSAGES_A_BATCH = 32
_log = logging.getLogger(__name__)


def embed(passages: Sequence[str], encoder: str) -> np.ndarray:
    """A vector of length 1 for each passage: the mean of the states of its tokens. Float32, (passages, width).

    Args:
        encoder: a place, as `pipeline.models.checkpoint_sources` finds it.

    Raises:
        Rejected: the encoder cannot be had.
    """
    tokenizer, model = _load(encoder)
    longest = min(_LONGEST_TOKENS, tokenizer.model_max_length)
    order = sorted(range(len(passages)), key=lambda n: len(passages[n]))  # so that little is padded
    vectors = np.empty((len(passages), model.config.hidden_size), dtype=np.float32)
    with tqdm(total=len(passages), desc="reading", unit="passage", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(order), _PASSAGES_A_BATCH):
            batch = order[start : start + _PASSAGES_A_BATCH]
            texts = [passages[n] for n in batch]
            inputs = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            with torch.inference_mode():
                states = model(**inputs.to(model.device)).last_hidden_state
                mask = inputs["attention_mask"][..., None].to(states.dtype)
                means = (states * mask).sum(1) / mask.sum(1)
            vectors[batch] = torch.nn.functional.normalize(means, dim=1).float().cpu().numpy()
            bar.update(len(batch))
    if not sys.stderr.isatty():
        _log.info("%s passages read", f"{len(passages):,}")
    return vectors


@cache
def _load(encoder: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    try:
        folder = find_checkpoint(encoder)
    except Rejected as error:
        raise Rejected(f"chapters.encoder in params.yaml: {error}") from None
    disable_progress_bar()  # it counts weights, and takes less than a second
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise Rejected(f"The encoder '{encoder}' cannot be opened: {error}. Set another in params.yaml.") from None
    return tokenizer, model.eval().to(inference_device())
