"""The one table of what differs between architectures. Nothing else in Lectern asks which architecture it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedTokenizerBase

from pipeline.models import scratch

GROUPS = ("embedding", "encoder", "decoder", "head")


@dataclass(frozen=True)
class Prompt:
    """How a causal model is asked for a title, through its tokenizer's chat template."""

    question: str  # what the user says; `{text}` stands for the transcript
    answer: str  # how the model's answer begins; it goes on with a space and the title


@dataclass(frozen=True)
class CrossAttention:
    """Where a decoder layer attends to the text."""

    module: str  # the end of the module's name
    projections: tuple[str, str]  # its parts that make keys and values of the text's states, in the order it has them


@dataclass(frozen=True)
class Family:
    """How one architecture wants its inputs, and where its layers are."""

    name: str
    model_class: type  # an `AutoModelFor…`
    model_types: tuple[str, ...]  # what a checkpoint's configuration may call itself
    groups: dict[str, tuple[str, ...]]  # layer group → prefixes of its parameters' names
    decoder_layers: str  # the decoder layers' prefix; `.0.`, `.1.` … follow it
    new_config: Callable[[scratch.ScratchSize, PreTrainedTokenizerBase], PretrainedConfig]
    new_tokenizer: Callable[[list[str], int], PreTrainedTokenizerBase]
    positions: Callable[[PretrainedConfig], tuple[float, float]]  # how many tokens a text and a title may have
    cross_attention: CrossAttention | None = None  # where the library computes it by an interface of ours to implement
    never_trained: tuple[str, ...] = ()  # prefixes of parameters that are constants, or that no title depends on
    prefix: str = ""  # put before every text
    prompt: Prompt | None = None  # causal models only: text and title are one sequence
    global_attention: bool = False  # the first token attends to, and is attended by, all others
    language: str | None = None  # code of the language of texts and titles, with which the decoder starts
    tokenizer_attributes: Mapping[str, str] = field(default_factory=dict)  # what its tokenizers come without
    encoder_types: tuple[str, ...] = ()  # models without a decoder whose weights both of this family's sides start from
    half_precision: Literal["float16", "float32"] = "float16"  # what trains without overflow on a GPU without bf16
    correct_library: Callable[[], None] = lambda: None  # mends the library's code before a model is opened

    @property
    def causal(self) -> bool:
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

_BART_CROSS_ATTENTION = CrossAttention(".encoder_attn", ("k_proj", "v_proj"))
_T5_CROSS_ATTENTION = CrossAttention(".EncDecAttention", ("k", "v"))

# BERT and ProphetNet end a sequence with their separator, and call no token its end.
_SEPARATOR_ENDS = {"eos_token": "[SEP]"}


def _relative(config: PretrainedConfig) -> tuple[float, float]:
    return math.inf, math.inf


def _as_many_on_both_sides(config: PretrainedConfig) -> tuple[float, float]:
    return config.max_position_embeddings, config.max_position_embeddings


def _led_positions(config: PretrainedConfig) -> tuple[float, float]:
    return config.max_encoder_position_embeddings, config.max_decoder_position_embeddings


def _prophetnet_positions(config: PretrainedConfig) -> tuple[float, float]:
    """The first one is padding's, and each token of a title looks at the one after its own, too."""
    return config.max_position_embeddings - 1, config.max_position_embeddings - 2


def _correct_prophetnet() -> None:
    from pipeline.models import prophetnet  # loads the library's ProphetNet, which no other family needs

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
            cross_attention=_T5_CROSS_ATTENTION,
            new_config=scratch.t5_config,
            new_tokenizer=scratch.t5_tokenizer,
            positions=_relative,
            prefix="summarize: ",
            half_precision="float32",
        ),
        Family(
            name="mt5",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("mt5",),
            groups=_T5_GROUPS,
            decoder_layers="decoder.block",
            cross_attention=_T5_CROSS_ATTENTION,
            new_config=scratch.mt5_config,
            new_tokenizer=scratch.t5_tokenizer,
            positions=_relative,
            half_precision="float32",
        ),
        Family(
            name="bart",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("bart",),
            groups=_BART_GROUPS,
            decoder_layers="model.decoder.layers",
            cross_attention=_BART_CROSS_ATTENTION,
            new_config=scratch.bart_config,
            new_tokenizer=scratch.bart_tokenizer,
            positions=_as_many_on_both_sides,
        ),
        Family(
            name="pegasus",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("pegasus",),
            groups=_BART_GROUPS,
            decoder_layers="model.decoder.layers",
            cross_attention=_BART_CROSS_ATTENTION,
            never_trained=("model.encoder.embed_positions", "model.decoder.embed_positions"),  # sines and cosines
            new_config=scratch.pegasus_config,
            new_tokenizer=scratch.pegasus_tokenizer,
            positions=_as_many_on_both_sides,
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
            cross_attention=_BART_CROSS_ATTENTION,
            new_config=scratch.mbart_config,
            new_tokenizer=scratch.mbart_tokenizer,
            positions=_as_many_on_both_sides,
            language="en_XX",
        ),
        Family(
            name="blenderbot-small",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("blenderbot-small",),
            groups=_BART_GROUPS,
            decoder_layers="model.decoder.layers",
            cross_attention=_BART_CROSS_ATTENTION,
            new_config=scratch.blenderbot_small_config,
            new_tokenizer=scratch.blenderbot_small_tokenizer,
            positions=_as_many_on_both_sides,
            # It adds no end token, without which a model never learns where a title ends.
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
            cross_attention=CrossAttention(".crossattention.self", ("key", "value")),
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
            positions=_as_many_on_both_sides,
            prompt=Prompt(
                question="Write a short topic title for this part of a lecture transcript.\n\n{text}",
                answer="Topic title:",
            ),
        ),
    )
}

DROPPED = {"xlm-prophetnet": "transformers 4 was the last to carry it, and 5 has no class that reads its checkpoints"}
"""Families that somebody may look for, and why they are not among ours."""


def family_in(name: str, language: str | None) -> Family:
    """The family of that name, whose texts and titles are in `language` where that is not its own."""
    return replace(FAMILIES[name], language=language) if language else FAMILIES[name]


def families_instead_of(unknown: Iterable[str]) -> str:
    """What to say to who has named families that are not there: what has become of them, and which there are."""
    gone = [f"{name} is gone: {DROPPED[name]}; " for name in unknown if name in DROPPED]
    return f"{''.join(gone)}there are {', '.join(FAMILIES)}"
