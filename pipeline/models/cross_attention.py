"""What a decoder attends to in a text, kept once for all the titles that are being written of it.

`generate` repeats a text for each of its beams, or of the titles drawn for it. These differ in what has been written
so far, never in the text, and beam search puts a beam only in the place of another of the same text. So keys and values
of the cross-attention are computed once a text and stay where they are, which changes nothing of what is written.
"""

from __future__ import annotations

from typing import Any

from torch import LongTensor, Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

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


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`sdpa`, also where each row of `key` and `value` answers several of `query`, which stand side by side.

    Args:
        query: (texts * titles, heads, 1, width); the mask has as many rows.
        key, value: (texts, heads, tokens, width).
    """
    texts, titles = len(key), len(query) // len(key)
    if titles == 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    by_text = query.view(texts, titles, *query.shape[1::2]).transpose(1, 2)  # (texts, heads, titles, width)
    mask = None if attention_mask is None else attention_mask[::titles]
    attended, _ = sdpa_attention_forward(module, by_text, key, value, mask, **{**options, "is_causal": False})
    return attended.flatten(0, 1).unsqueeze(1), None


AttentionInterface.register(_BY_TEXT, _attend)
AttentionMaskInterface.register(_BY_TEXT, sdpa_mask)
