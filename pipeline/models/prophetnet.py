"""Correct a fault in the library's ProphetNet: in training, tokens of a title see later tokens.

The decoder's predicting streams add a bias to each attention weight, which depends on the distance of the two tokens.
When transformers 5.23 computes a whole title, it puts these biases into the wrong order: a token gets the bias of
another token, which may be a later one. A single token, as in generation, is computed correctly. Without the
correction, a model therefore learns one function and writes with another. When the library corrects the fault,
`tests/models/test_title_logits.py` fails. Then delete this module.
"""

from __future__ import annotations

from functools import wraps

from torch import Tensor
from transformers.models.prophetnet.modeling_prophetnet import ProphetNetNgramSelfAttention

_METHOD = "get_predict_relative_pos_embeddings"
_library_biases = getattr(ProphetNetNgramSelfAttention, _METHOD)


@wraps(_library_biases)
def _distance_biases(
    attention: ProphetNetNgramSelfAttention,
    hidden_states: Tensor,
    attn_weights: Tensor,
    position_ids: Tensor,
    predict_relative_position_buckets: Tensor | None,
) -> Tensor:
    """Look up the biases for the distances between tokens.

    Args:
        attention: The layer's self-attention.
        hidden_states: (titles, tokens, streams, width).
        attn_weights: (titles, streams, heads, tokens, keys).
        position_ids: Positions of the tokens.
        predict_relative_position_buckets: Bucket of each distance, (titles, tokens, keys). None for a single token
            after cached tokens.

    Returns:
        One bias for each attention weight, in their shape.
    """
    if predict_relative_position_buckets is None:
        return _library_biases(attention, hidden_states, attn_weights, position_ids, None)
    by_bucket = attention.relative_pos_embeddings(hidden_states)
    by_bucket = by_bucket.unflatten(-1, (attention.num_buckets, attention.num_attn_heads))
    by_bucket = by_bucket.permute(0, 2, 4, 1, 3)  # (titles, streams, heads, tokens, buckets)
    buckets = predict_relative_position_buckets[:, None, None].long()
    return by_bucket.gather(-1, buckets.expand(attn_weights.shape))


def correct_library() -> None:
    """Give the library's decoder the right biases, for every model of this process."""
    setattr(ProphetNetNgramSelfAttention, _METHOD, _distance_biases)
