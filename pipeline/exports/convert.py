"""Convert the weights of a model folder for CTranslate2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctranslate2.converters import TransformersConverter
from ctranslate2.specs import ModelSpec
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import Rejected
from pipeline.exports.export_card import Weights
from pipeline.models.checkpoints import load_model


def convert(folder: Path, out: Path, weights: Weights) -> None:
    """Convert the model in `folder` and write it to the new folder `out`.

    Raises:
        Rejected: CTranslate2 does not support the architecture.
    """
    model, tokenizer, card = load_model(folder)
    if [*range(len(tokenizer))] != sorted(tokenizer.get_vocab().values()):
        raise Rejected(
            f"The version cannot be exported: its vocabulary in {folder} has gaps, which CTranslate2 does not support."
        )
    try:
        _Converter(folder, model, tokenizer).convert(str(out), quantization=weights)
    except (ValueError, NotImplementedError, KeyError) as error:
        reason = str(error).partition(" (supported")[0]
        raise Rejected(f"A model of family '{card.family}' cannot be exported. CTranslate2: {reason}.") from None


class _Converter(TransformersConverter):
    """Converter of a model that is already open, in full precision and with Lectern's tokenizer."""

    def __init__(self, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(str(folder))
        self._model = model
        self._tokenizer = tokenizer

    def load_model(self, *_: Any, **__: Any) -> PreTrainedModel:
        body: Any = getattr(self._model, "model", None)
        if hasattr(body, "encoder"):
            # The converter reads these two from the configuration, where they are missing. The layers tell the same.
            self._model.config.normalize_before = hasattr(body.encoder, "layer_norm")
            self._model.config.normalize_embedding = hasattr(body.encoder, "layernorm_embedding")
        if hasattr(self._model.config, "scale_decoder_outputs"):
            # The converter scales a T5's outputs if its embeddings are tied, which transformers states of every T5.
            self._model.config.tie_word_embeddings = self._model.config.scale_decoder_outputs
        return self._model

    def load_tokenizer(self, *_: Any, **__: Any) -> PreTrainedTokenizerBase:
        return self._tokenizer

    def _load(self) -> ModelSpec:
        spec = super()._load()
        if self._model.config.is_encoder_decoder:
            spec.config.decoder_start_token = None  # each request names it, with the language if there is one
        elif spec.config.bos_token is None:
            spec.config.bos_token = spec.config.eos_token  # required, but never used
        return spec
