"""The table of families: everything in which architectures differ. No other module distinguishes architectures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedTokenizerBase

from pipeline.models import scratch

GROUPS = ("embedding", "encoder", "decoder", "head")


@dataclass(frozen=True)
class Prompt:
    """The text that a causal model reads before it writes a title."""

    question: str  # `{text}` is replaced by the transcript
    answer: str = ""  # start of the model's answer; a space and the title follow
    chat: bool = True  # the question is the user's message in the tokenizer's chat template; false: it is plain text


@dataclass(frozen=True)
class Family:
    """One architecture: its classes, inputs and layers."""

    name: str
    model_class: Any  # an `AutoModelFor…` class
    model_types: tuple[str, ...]  # accepted values of `model_type` in a checkpoint's configuration
    groups: dict[str, tuple[str, ...]]  # layer group → prefixes of its parameters' names
    decoder_layers: str  # prefix of the decoder layers, before `.0.`, `.1.` …
    new_config: Callable[[scratch.ScratchSize, PreTrainedTokenizerBase], PretrainedConfig]
    new_tokenizer: Callable[[list[str], int], PreTrainedTokenizerBase]
    positions: Callable[[PretrainedConfig], tuple[float, float]]  # most tokens of a text and of a title
    never_trained: tuple[str, ...] = ()  # prefixes of parameters that are constants, or that titles do not depend on
    prefix: str = ""  # precedes every text
    prompt: Prompt | None = None  # causal models only: text and title are one sequence
    global_attention: bool = False  # the first token attends to all tokens, and all tokens attend to it
    language: str | None = None  # language code of texts and titles, with which the decoder starts
    tokenizer_attributes: Mapping[str, str] = field(default_factory=dict)  # attributes that its tokenizers lack
    encoder_types: tuple[str, ...] = ()  # model types of plain encoders from which both sides can start
    half_precision: Literal["float16", "float32"] = "float16"  # trains without overflow on a GPU without bfloat16
    correct_library: Callable[[], None] = lambda: None  # corrects the library's code before a model is opened

    @property
    def causal(self) -> bool:
        """Return whether the model is causal: a decoder that reads text and title as one sequence."""
        return self.prompt is not None


_BART_GROUPS = {
    "embedding": ("model.shared", "model.encoder.embed", "model.decoder.embed"),
    "encoder": ("model.encoder.",),
    "decoder": ("model.decoder.",),
    "head": ("lm_head", "final_logits_bias"),
}

_T5_GROUPS = {
    "embedding": ("shared", "encoder.embed_tokens", "decoder.embed_tokens"),
    "encoder": ("encoder.",),
    "decoder": ("decoder.",),
    "head": ("lm_head",),
}

# BERT and ProphetNet end a sequence with their separator, and define no end token.
_SEPARATOR_ENDS = {"eos_token": "[SEP]"}


def _unlimited_positions(config: PretrainedConfig) -> tuple[float, float]:
    """Relative positions have no limit."""
    return math.inf, math.inf


def _equal_positions(config: PretrainedConfig) -> tuple[float, float]:
    return config.max_position_embeddings, config.max_position_embeddings


def _led_positions(config: PretrainedConfig) -> tuple[float, float]:
    return config.max_encoder_position_embeddings, config.max_decoder_position_embeddings


def _prophetnet_positions(config: PretrainedConfig) -> tuple[float, float]:
    """Position 0 is for padding, and each token of a title also uses the position after its own."""
    return config.max_position_embeddings - 1, config.max_position_embeddings - 2


def _correct_prophetnet() -> None:
    from pipeline.models import prophetnet  # loads a module of the library that no other family needs

    prophetnet.correct_library()


def _encoder_decoder_positions(config: PretrainedConfig) -> tuple[float, float]:
    return config.encoder.max_position_embeddings, config.decoder.max_position_embeddings


FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="t5",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("t5",),
            groups=_T5_GROUPS,
            decoder_layers="decoder.block",
            new_config=scratch.t5_config,
            new_tokenizer=scratch.t5_tokenizer,
            positions=_unlimited_positions,
            prefix="summarize: ",
            half_precision="float32",
        ),
        Family(
            name="mt5",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("mt5",),
            groups=_T5_GROUPS,
            decoder_layers="decoder.block",
            new_config=scratch.mt5_config,
            new_tokenizer=scratch.t5_tokenizer,
            positions=_unlimited_positions,
            half_precision="float32",
        ),
        Family(
            name="bart",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("bart",),
            groups=_BART_GROUPS,
            decoder_layers="model.decoder.layers",
            new_config=scratch.bart_config,
            new_tokenizer=scratch.bart_tokenizer,
            positions=_equal_positions,
        ),
        Family(
            name="pegasus",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("pegasus",),
            groups=_BART_GROUPS,
            decoder_layers="model.decoder.layers",
            never_trained=("model.encoder.embed_positions", "model.decoder.embed_positions"),  # sines and cosines
            new_config=scratch.pegasus_config,
            new_tokenizer=scratch.pegasus_tokenizer,
            positions=_equal_positions,
            half_precision="float32",
        ),
        Family(
            name="led",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("led",),
            groups={
                "embedding": ("led.shared", "led.encoder.embed", "led.decoder.embed"),
                "encoder": ("led.encoder.",),
                "decoder": ("led.decoder.",),
                "head": ("lm_head", "final_logits_bias"),
            },
            decoder_layers="led.decoder.layers",
            new_config=scratch.led_config,
            new_tokenizer=scratch.led_tokenizer,
            positions=_led_positions,
            global_attention=True,
        ),
        Family(
            name="mbart",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("mbart",),
            groups=_BART_GROUPS,
            decoder_layers="model.decoder.layers",
            new_config=scratch.mbart_config,
            new_tokenizer=scratch.mbart_tokenizer,
            positions=_equal_positions,
            language="en_XX",
        ),
        Family(
            name="blenderbot-small",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("blenderbot-small",),
            groups=_BART_GROUPS,
            decoder_layers="model.decoder.layers",
            new_config=scratch.blenderbot_small_config,
            new_tokenizer=scratch.blenderbot_small_tokenizer,
            positions=_equal_positions,
            # Its tokenizer adds no end token by default, and a model would never learn to end a title.
            tokenizer_attributes={"special_tokens_pattern": "eos"},
        ),
        Family(
            name="prophetnet",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("prophetnet",),
            groups={
                "embedding": (
                    "prophetnet.word_embeddings",
                    "prophetnet.encoder.word_embeddings",
                    "prophetnet.encoder.position_embeddings",
                    "prophetnet.decoder.word_embeddings",
                    "prophetnet.decoder.position_embeddings",
                    "prophetnet.decoder.ngram_embeddings",
                ),
                "encoder": ("prophetnet.encoder.",),
                "decoder": ("prophetnet.decoder.",),
                "head": ("lm_head",),
            },
            decoder_layers="prophetnet.decoder.layers",
            new_config=scratch.prophetnet_config,
            new_tokenizer=scratch.prophetnet_tokenizer,
            positions=_prophetnet_positions,
            tokenizer_attributes=_SEPARATOR_ENDS,
            correct_library=_correct_prophetnet,
        ),
        Family(
            name="encoder-decoder",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("encoder-decoder",),
            groups={
                "embedding": ("encoder.embeddings", "decoder.bert.embeddings"),
                "encoder": ("encoder.",),
                "decoder": ("decoder.bert.",),
                "head": ("decoder.cls",),
            },
            decoder_layers="decoder.bert.encoder.layer",
            never_trained=("encoder.pooler",),
            new_config=scratch.encoder_decoder_config,
            new_tokenizer=scratch.bert_tokenizer,
            positions=_encoder_decoder_positions,
            tokenizer_attributes=_SEPARATOR_ENDS,
            encoder_types=("bert",),
        ),
        Family(
            name="causal",
            model_class=AutoModelForCausalLM,
            model_types=("llama", "mistral", "qwen2", "qwen3"),
            groups={
                "embedding": ("model.embed_tokens",),
                "encoder": (),
                "decoder": ("model.layers.", "model.norm"),
                "head": ("lm_head",),
            },
            decoder_layers="model.layers",
            new_config=scratch.causal_config,
            new_tokenizer=scratch.causal_tokenizer,
            positions=_equal_positions,
            prompt=Prompt(
                question="Write a short topic title for this part of a lecture transcript.\n\n{text}",
                answer="Topic title:",
            ),
        ),
    )
}

DROPPED = {"xlm-prophetnet": "transformers 4 was the last to have it, and transformers 5 cannot read its checkpoints"}
"""Families that older versions of transformers had, with the reason for their absence."""


def get_family(name: str, language: str | None = None, prompt: str | None = None) -> Family:
    """Return the family of this name.

    Args:
        name: The family's name.
        language: Replaces its default language.
        prompt: Plain text that replaces the question in the tokenizer's chat template.
    """
    family = FAMILIES[name]
    if language:
        family = replace(family, language=language)
    return replace(family, prompt=Prompt(prompt.rstrip(" "), chat=False)) if prompt else family


def explain_unknown_families(unknown: Iterable[str]) -> str:
    """Explain in an error message why families are missing, and list the available ones."""
    reasons = [f"{name} is no longer supported: {DROPPED[name]}; " for name in unknown if name in DROPPED]
    return f"{''.join(reasons)}the families are {', '.join(FAMILIES)}"
