"""A sequence-to-sequence model out of an encoder alone.

Both sides start from the encoder's weights; the decoder's cross-attention and its head, but for the embedding that it
shares, start at random. This is BERT2BERT of Rothe, Narayan and Severyn (2020), "Leveraging Pre-trained Checkpoints for
Sequence Generation Tasks".
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from transformers import AutoModel, EncoderDecoderConfig, EncoderDecoderModel, PreTrainedTokenizerBase

from pipeline.models.scratch import encoder_decoder_ids


def warm_start(folder: Path, tokenizer: PreTrainedTokenizerBase) -> EncoderDecoderModel:
    """The model, in float32, of which both sides are the encoder that transformers saved in `folder`."""
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        encoder.config, deepcopy(encoder.config), **encoder_decoder_ids(tokenizer)
    )
    model = EncoderDecoderModel(config, encoder=encoder)
    # Not strict: only the encoder has a pooler, and only the decoder cross-attention.
    model.decoder.base_model.load_state_dict(encoder.state_dict(), strict=False)
    return model
