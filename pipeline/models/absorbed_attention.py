"""Cross-attention that takes a title's queries to the text's states, instead of the states to keys and values.

Keys are a projection of the encoder's states, so that q · (W h) = (Wᵀ q) · h; values are one too, and the weighted sum
of projected states is the projection of their weighted sum. It is the same attention in another order of multiplying:
for a text of hundreds of tokens and a title of ten, with several times fewer products. DeepSeek-V2 (arXiv:2405.04434,
section 2.1.2) does so to spare its cache, and calls the projections absorbed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop


class Absorbed(nn.Module):
    """Stands where a projection was, and hands the states on as they are."""

    def __init__(self, projection: nn.Linear) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, states: Tensor) -> Tensor:
        return states


def attend_to_states(
    query: Tensor,
    states: Tensor,
    mask: Tensor | None,
    key: nn.Linear,
    value: nn.Linear,
    *,
    scaling: float,
    dropout: float,
) -> Tensor:
    """The attention of `query` to the keys and values that the two projections would make of `states`.

    Args:
        query: (texts, heads, title tokens, width).
        states: (texts, text tokens, states' width).
        mask: of booleans, or to be added; (texts or 1, heads or 1, title tokens or 1, text tokens).

    Returns:
        (texts, title tokens, heads, width).
    """
    heads = query.shape[1]
    key_weight, value_weight = (projection.weight.unflatten(0, (heads, -1)) for projection in (key, value))
    scores = _heads_at_once(query @ key_weight, states.mT)
    if key.bias is not None:
        scores = scores + query @ key.bias.view(heads, -1, 1)
    scores = scores * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = drop(scores.softmax(-1), dropout)
    attended = _heads_at_once(weights, states) @ value_weight.mT
    if value.bias is not None:
        attended = attended + weights.sum(-1, keepdim=True) * value.bias.view(heads, 1, -1)
    return attended.transpose(1, 2)


def _heads_at_once(by_head: Tensor, matrix: Tensor) -> Tensor:
    """Each head's rows times the text's one matrix: a product for all heads is quicker than one a head."""
    return (by_head.flatten(1, 2) @ matrix).unflatten(1, by_head.shape[1:3])
