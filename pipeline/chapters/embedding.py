"""Embed passages with a sentence encoder such as MiniLM (Reimers & Gurevych, 2019: "Sentence-BERT")."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from pipeline.errors import Rejected
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.device import inference_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LONGEST_TOKENS = 256  # the length that MiniLM was trained with
_BATCH_SIZE = 32
_log = logging.getLogger(__name__)


def embed(passages: Sequence[str], encoder: str) -> np.ndarray:
    """Embed each passage as the mean of its token states, scaled to length 1.

    Args:
        encoder: the source of a checkpoint, as in `pipeline.models.checkpoint_sources`.

    Returns:
        Float32 array of shape (passages, width).

    Raises:
        Rejected: the encoder cannot be found or opened.
    """
    import torch  # takes seconds, and reading a leaderboard of boundaries does not need it

    tokenizer, model = _load(encoder)
    longest = min(_LONGEST_TOKENS, tokenizer.model_max_length)
    order = sorted(range(len(passages)), key=lambda n: len(passages[n]))  # similar lengths need little padding
    vectors = np.empty((len(passages), model.config.hidden_size), dtype=np.float32)
    with tqdm(total=len(passages), desc="reading", unit="passage", leave=None, disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(order), _BATCH_SIZE):
            batch = order[start : start + _BATCH_SIZE]
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
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it only counts the weights of a small file
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise Rejected(
            f"The encoder '{encoder}' cannot be opened: {error}. Set another in params.yaml, chapters.encoder."
        ) from None
    return tokenizer, model.eval().to(inference_device())
