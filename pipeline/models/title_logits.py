"""Compute the logits of a title's tokens in both ways of a model: in one pass as in training, or token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.models.features import EncodedTexts
from pipeline.models.inputs import Inputs

Rows = Sequence[list[int]]
"""Token ids, one row per text or title."""

InputsOfSpan = Callable[[int, int], dict[str, Any]]
"""Returns the model's inputs for the tokens from a start position up to, but without, an end position."""


def logits_at_once(model: PreTrainedModel, inputs: Inputs, sources: Rows, titles: Rows) -> Tensor:
    """Compute the logits after each token of each title in one pass, as in training.

    Args:
        model: The model, in evaluation mode.
        inputs: The model's inputs.
        sources: Token ids of the texts, from `Inputs.source`.
        titles: Token ids that the decoder reads for each text. All titles have the same length.

    Returns:
        (titles, tokens, vocabulary).
    """
    title_start, end, span = _sequences(model, inputs, sources, titles)
    return _logits(model, span, [0, end])[:, title_start:]


def logits_by_steps(model: PreTrainedModel, inputs: Inputs, sources: Rows, titles: Rows) -> Tensor:
    """Compute the result of `logits_at_once` token by token with cached keys and values, as in generation."""
    title_start, end, span = _sequences(model, inputs, sources, titles)
    return _logits(model, span, [0, *range(title_start or 1, end + 1)])[:, title_start:]


def _sequences(model: PreTrainedModel, inputs: Inputs, sources: Rows, titles: Rows) -> tuple[int, int, InputsOfSpan]:
    """Return the start of the titles in the decoder's sequences, the end of the sequences, and their inputs."""
    if not inputs.family.causal:
        encoded = inputs.with_features(EncodedTexts(model, inputs, sources)(sources), inputs.batch(sources))
        title_ids = torch.tensor(titles)
        return 0, title_ids.shape[1], lambda start, end: {**encoded, "decoder_input_ids": title_ids[:, start:end]}
    batch = inputs.batch([[*source, *title] for source, title in zip(sources, titles, strict=True)])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    positions = inputs.positions(mask)

    def span(start: int, end: int) -> dict[str, Any]:
        return {
            "input_ids": ids[:, start:end],
            "attention_mask": mask[:, :end],
            "position_ids": positions[:, start:end],
        }

    return max(map(len, sources)), ids.shape[1], span


@torch.inference_mode()
def _logits(model: PreTrainedModel, span: InputsOfSpan, cuts: Sequence[int]) -> Tensor:
    """Compute the logits of all tokens with one pass per pair of neighbouring cuts."""
    cache, logits = None, []
    for start, end in pairwise(cuts):
        output = model(**span(start, end), past_key_values=cache, use_cache=len(cuts) > 2)
        cache = output.past_key_values
        logits.append(output.logits)
    return torch.cat(logits, dim=1)
