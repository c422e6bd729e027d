"""The one table of what differs between architectures. Nothing else in Lectern asks which architecture it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedTokenizerBase

from pipeline.models import scratch

GROUPS = ("embedding", "encoder", "decoder", "head")


@dataclass(frozen=True)
class Prompt:
    """How a causal model is asked for a title, through its tokenizer's chat template."""

    question: str  # what the user says; `{text}` stands for the transcript
    answer: str  # how the model's answer begins; it goes on with a space and the title


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
    prefix: str = ""  # put before every text
    prompt: Prompt | None = None  # causal models only: text and title are one sequence
    global_attention: bool = False  # the first token attends to, and is attended by, all others
    language: str | None = None  # source and target language code, and the forced first token of a title
    half_precision: str = "float16"  # what trains without overflow on a GPU without bf16; "float32" where nothing does

    @property
    def causal(self) -> bool:
        return self.prompt is not None


_BART_GROUPS = {
    "embedding": ("model.shared", "model.encoder.embed", "model.decoder.embed"),
    "encoder": ("model.encoder.",),
    "decoder": ("model.decoder.",),
    "head": ("lm_head", "final_logits_bias"),
}

FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="t5",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("t5", "mt5"),
            groups={
                "embedding": ("shared", "encoder.embed_tokens", "decoder.embed_tokens"),
                "encoder": ("encoder.",),
                "decoder": ("decoder.",),
                "head": ("lm_head",),
            },
            decoder_layers="decoder.block",
            new_config=scratch.t5_config,
            new_tokenizer=scratch.t5_tokenizer,
            prefix="summarize: ",
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
        ),
        Family(
            name="pegasus",
            model_class=AutoModelForSeq2SeqLM,
            model_types=("pegasus",),
            groups=_BART_GROUPS,
            decoder_layers="model.decoder.layers",
            new_config=scratch.pegasus_config,
            new_tokenizer=scratch.pegasus_tokenizer,
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
            language="en_XX",
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
            prompt=Prompt(
                question="Write a short topic title for this part of a lecture transcript.\n\n{text}",
                answer="Topic title:",
            ),
        ),
    )
}
