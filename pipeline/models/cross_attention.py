"""How a decoder attends to a text: once for all titles that are written of it, and cheaply for one that is learnt.

`generate` repeats a text for each of its beams, or of the titles drawn for it. These differ in what has been written
so far, never in the text, and beam search puts a beam only in the place of another of the same text. So keys and values
of the cross-attention are computed once a text and stay where they are, which changes nothing of what is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import LongTensor, Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pipeline.models.absorbed_attention import Absorbed, attend_to_states
from pipeline.models.families import Family

_BY_TEXT = "sdpa_by_text"


class CrossAttentionCache(DynamicCache):
    """Keys and values of texts, (texts, heads, tokens, width) a layer, that stay in place when beams change theirs."""

    def reorder_cache(self, beam_idx: LongTensor) -> None:
        pass


def attend_by_text(model: PreTrainedModel) -> bool:
    """Has the decoder of `model` take one row of keys and values for several of queries.

    False where it cannot: a few architectures compute their attention themselves.
    """
    decoder = model.get_decoder()
    if decoder.config._attn_implementation == "sdpa":
        decoder.set_attn_implementation(_BY_TEXT)
    return decoder.config._attn_implementation == _BY_TEXT


@contextmanager
def states_instead_of_keys(model: PreTrainedModel, family: Family) -> Iterator[None]:
    """While the block runs, short titles attend to a text's states themselves (`pipeline.models.absorbed_attention`).

    What the backward pass computes again belongs into the block. Nothing changes where the architecture computes its
    attention itself, and where a projection is more than one matrix, such as one with adapters.
    """
    places = [
        (module, name)
        for path, module in model.named_modules()
        if family.cross_attention and path.endswith(family.cross_attention.module)
        for name in family.cross_attention.projections
    ]
    if any(type(getattr(*place)) is not nn.Linear for place in places) or not attend_by_text(model):
        places = []
    for module, name in places:
        setattr(module, name, Absorbed(getattr(module, name)))
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, getattr(module, name).projection)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`sdpa`, for what `Absorbed` hands on too, and for several titles of a text."""
    absorbed = [child.projection for child in module.children() if isinstance(child, Absorbed)]
    if absorbed:
        return _attend_to_states(absorbed, module, query, key, attention_mask, **options)
    if len(query) > len(key):
        return _attend_by_text(module, query, key, value, attention_mask, **options)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _attend_to_states(
    projections: list[nn.Linear],
    module: nn.Module,
    query: Tensor,
    by_head: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """
    Args:
        projections: to keys and to values.
        by_head: the states, taken apart as if they were keys.
    """
    states = by_head.transpose(1, 2).flatten(2)
    title_tokens, head_width = query.shape[2:]
    if title_tokens < head_width:
        # The relative positions of T5's cross-attention are zeros.
        scaling, dropout = options["scaling"], options["dropout"]
        return attend_to_states(query, states, attention_mask, *projections, scaling=scaling, dropout=dropout), None
    key, value = (each(states).unflatten(-1, (query.shape[1], -1)).transpose(1, 2) for each in projections)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _attend_by_text(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Each row of `key` and `value` answers several of `query`, which stand side by side.

    Args:
        query: (texts * titles, heads, 1, width); the mask has as many rows.
        key, value: (texts, heads, tokens, width).
    """
    texts, titles = len(key), len(query) // len(key)
    by_text = query.view(texts, titles, *query.shape[1::2]).transpose(1, 2)  # (texts, heads, titles, width)
    mask = None if attention_mask is None else attention_mask[::titles]
    attended, _ = sdpa_attention_forward(module, by_text, key, value, mask, **{**options, "is_causal": False})
    return attended.flatten(0, 1).unsqueeze(1), None


AttentionInterface.register(_BY_TEXT, _attend)
AttentionMaskInterface.register(_BY_TEXT, sdpa_mask)
