"""Logits of a title's tokens in the two ways a model computes them: at once to learn, token by token to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.models.features import Encoded
from pipeline.models.inputs import Inputs

Rows = Sequence[list[int]]
"""Token ids, a row for each text or title."""


def logits_at_once(model: PreTrainedModel, inputs: Inputs, sources: Rows, titles: Rows) -> Tensor:
    """Compute the logits behind each token of each title in one pass, as in training.

    Args:
        sources: the texts, as `Inputs.source` gives them.
        titles: what the decoder is given for each text, of one length.

    Returns:
        (titles, tokens, vocabulary).
    """
    title_start, end, tokens = _sequences(model, inputs, sources, titles)
    return _logits(model, tokens, [0, end])[:, title_start:]


def logits_by_steps(model: PreTrainedModel, inputs: Inputs, sources: Rows, titles: Rows) -> Tensor:
    """Compute what `logits_at_once` does in one pass for each token, with cached keys and values, as in generation."""
    title_start, end, tokens = _sequences(model, inputs, sources, titles)
    return _logits(model, tokens, [0, *range(title_start or 1, end + 1)])[:, title_start:]


Tokens = Callable[[int, int], dict[str, Any]]
"""From the places of the first token and of the one behind the last to what the model is given of these."""


def _sequences(model: PreTrainedModel, inputs: Inputs, sources: Rows, titles: Rows) -> tuple[int, int, Tokens]:
    """The place where titles start in the decoder's sequences, the place where these end, and their tokens."""
    if not inputs.family.causal:
        read = inputs.fed_with(Encoded(model, inputs, sources)(sources), inputs.batch(sources))
        ids = torch.tensor(titles)
        return 0, ids.shape[1], lambda start, end: {**read, "decoder_input_ids": ids[:, start:end]}
    batch = inputs.batch([[*source, *title] for source, title in zip(sources, titles, strict=True)])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    places = inputs.positions(mask)

    def tokens(start: int, end: int) -> dict[str, Any]:
        return {
            "input_ids": ids[:, start:end],
            "attention_mask": mask[:, :end],
            "position_ids": places[:, start:end],
        }

    return max(map(len, sources)), ids.shape[1], tokens


@torch.inference_mode()
def _logits(model: PreTrainedModel, tokens: Tokens, cuts: Sequence[int]) -> Tensor:
    """The logits of all tokens, from one pass for each two neighbouring places of `cuts`."""
    cache, found = None, []
    for start, end in pairwise(cuts):
        output = model(**tokens(start, end), past_key_values=cache, use_cache=len(cuts) > 2)
        cache = output.past_key_values
        found.append(output.logits)
    return torch.cat(found, dim=1)
