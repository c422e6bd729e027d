"""Generate titles for texts. Training, evaluation and serving of all families use this module."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import send_to_device
from pydantic import Field, model_validator
from torch import LongTensor, Tensor
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from pipeline.data.lesson_openings import has_opening_mark, remove_opening_mark
from pipeline.errors import UsageError
from pipeline.models.checkpoints import Card, ModelSettings, load_inputs, load_model, open_checkpoint
from pipeline.models.device import inference_device
from pipeline.models.features import EncodedTexts
from pipeline.models.inputs import Inputs
from pipeline.models.out_of_memory import halve_when_out_of_memory
from pipeline.models.title_cleanup import PLAIN, TitleStyle, clean_up_title
from pipeline.settings import Section, Settings, check, read_params

log = logging.getLogger(__name__)


class GenerateSettings(Settings):
    """Generation settings of one model. A checkpoint's own generation settings are never used."""

    num_beams: int = Field(ge=1)  # sequences that beam search keeps; 1 is greedy search, or sampling
    max_new_tokens: int = Field(ge=1)
    min_new_tokens: int = Field(default=1, ge=0, description="shortest title, in tokens")
    no_repeat_ngram_size: int = Field(ge=0)  # a run of this many tokens never repeats; 0 allows repeats
    length_penalty: float  # above 0 favours long titles; only beam search uses it
    batch_size: int = Field(ge=1)  # texts per batch, without sampling
    do_sample: bool = False  # sample tokens instead of choosing the most probable ones
    temperature: float = Field(default=1.0, gt=0, description="of sampling; below 1 prefers probable tokens")
    top_k: int = Field(default=50, ge=0, description="sample from this many tokens; 0 means all")
    top_p: float = Field(default=1.0, gt=0, le=1, description="sample from this share of the probability")
    consensus: int = Field(default=0, ge=0)  # number of samples from which the title with most agreement is chosen
    candidates: int = Field(default=1, ge=1)  # titles per text, the best first
    seed: int = Field(default=1, description="of sampling")

    @model_validator(mode="after")
    def _enough_sequences(self) -> GenerateSettings:
        samples = self.do_sample and self.num_beams == 1
        if self.candidates > self.num_beams and not samples:
            raise ValueError(f"candidates {self.candidates} needs num_beams {self.candidates} or more")
        if self.consensus and not samples:
            raise ValueError("consensus needs do_sample: true and num_beams: 1")
        if 0 < self.consensus < self.candidates:
            raise ValueError(f"candidates {self.candidates} needs consensus {self.candidates} or more, or 0")
        return self

    @property
    def texts_at_once(self) -> int:
        """Return the texts per batch: one when sampling, since a sample depends on the other texts of its batch."""
        return 1 if self.do_sample else self.batch_size

    @property
    def sequences(self) -> int:
        """Return the number of sequences that are generated per text."""
        return max(self.num_beams, self.candidates, self.consensus)

    def with_overrides(self, overrides: Mapping[str, Any]) -> GenerateSettings:
        """Return these settings with other values, and adapt consensus and num_beams to them.

        `candidates: 0` stands for all titles that the search finds anyway.

        Raises:
            ValueError: A value is out of its range.
        """
        settings = {**self.model_dump(), **overrides}
        if not settings["do_sample"] or settings["num_beams"] > 1:
            settings["consensus"] = 0  # consensus needs samples
        settings["candidates"] = settings["candidates"] or settings["consensus"] or settings["num_beams"]
        if settings["consensus"]:
            settings["consensus"] = max(settings["consensus"], settings["candidates"])
        if not settings["do_sample"]:
            # Beam search returns at most as many titles as it has beams.
            settings["num_beams"] = max(settings["num_beams"], settings["candidates"])
        return GenerateSettings.model_validate(settings)

    @classmethod
    def read(cls, model: str) -> GenerateSettings:
        """Read the section `generate` of `params.yaml` with the model's own settings.

        Raises:
            UsageError: A value is invalid, or the section names a model that does not exist.
        """
        section = GenerateSection.read()
        unknown = sorted(section.models.keys() - (read_params().get("models") or {}).keys())
        if unknown:
            raise UsageError(f"params.yaml, generate.models: there is no model {', '.join(unknown)} under 'models'.")
        return check(cls, {**section.default, **section.models.get(model, {})}, at=f"generate ({model})")


class GenerateSection(Section):
    """The section `generate` of `params.yaml`."""

    section: ClassVar[str] = "generate"

    default: dict[str, Any]
    models: dict[str, dict[str, Any]] = {}  # each model's own settings


class Titler:
    """Generate titles with one model.

    Args:
        model: The model, in evaluation mode.
        inputs: The model's inputs.
        settings: Generation settings.
        features: Returns the encoder's output for token ids. By default the titler runs the encoder.
        style: The course's style of titles.

    Raises:
        UsageError: `max_new_tokens` exceeds the model's positions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        inputs: Inputs,
        settings: GenerateSettings,
        features: Callable[[Sequence[list[int]]], Tensor] | None = None,
        style: TitleStyle = PLAIN,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.settings = settings
        self.style = style
        self._features = features
        _, positions = inputs.family.positions(model.config)
        if settings.max_new_tokens > positions:
            raise UsageError(
                f"max_new_tokens is {settings.max_new_tokens}, but this model has positions for titles of {positions} "
                "tokens. Lower it in the section generate of params.yaml."
            )
        self._config = _generation_config(model.config, inputs, settings)
        # Otherwise `generate` would take missing settings from the checkpoint.
        model.generation_config = GenerationConfig()

    @torch.inference_mode()
    def titles(self, texts: list[str], *, progress: str | None = None) -> list[list[str]]:
        """Generate the candidates for each text, the best first. They are cleaned up and may be empty.

        Args:
            texts: Texts with or without their opening mark.
            progress: Label of a progress bar. Without it, or outside a terminal, no bar is shown.
        """
        sources = [self.inputs.source(remove_opening_mark(text)) for text in texts]
        # Sorting by length saves padding. The sort is stable, so the same texts give the same batches.
        order = sorted(range(len(texts)), key=lambda i: len(sources[i]), reverse=True)
        size = self.settings.texts_at_once
        starts = range(0, len(order), size)
        written: list[list[str]] = [[] for _ in texts]
        # A forked random state, so that titles after an epoch do not change the rest of a training.
        with torch.random.fork_rng():
            show_bar = progress is not None and len(starts) > 1 and sys.stderr.isatty()
            for start in tqdm(starts, desc=progress, unit="batch", disable=not show_bar):
                torch.manual_seed(self.settings.seed)
                chosen = order[start : start + size]
                generated = halve_when_out_of_memory(self._generate, [sources[i] for i in chosen])
                for i, candidates in zip(chosen, generated, strict=True):
                    written[i] = rank_candidates(candidates, texts[i], self.style, self.settings)
        return written

    def best_titles(self, texts: list[str], *, progress: str | None = None) -> list[str]:
        """Generate one title for each text."""
        return [candidates[0] for candidates in self.titles(texts, progress=progress)]

    def with_overrides(self, overrides: Mapping[str, Any]) -> Titler:
        """Return a titler of the same model with other generation settings.

        Raises:
            ValueError: A value is out of its range.
        """
        return Titler(self.model, self.inputs, self.settings.with_overrides(overrides), style=self.style)

    def _generate(self, sources: Sequence[list[int]]) -> list[list[str]]:
        """Return the model's raw titles for each source: `consensus` or `candidates` of them."""
        batch = self.inputs.batch(sources)
        if not self.inputs.family.causal:
            features = self._features or EncodedTexts(self.model, self.inputs, sources)
            batch = self.inputs.with_features(features(sources), batch)
        batch = send_to_device(batch, self.model.device)
        if self.settings.sequences > 1:
            fill_cache = self._with_prompt_cache if self.inputs.family.causal else self._with_cross_attention_cache
            batch = fill_cache(batch, self.settings.sequences)
        sequences = self.model.generate(**batch, generation_config=self._config, tokenizer=self.inputs.tokenizer)
        if self.inputs.family.causal:
            sequences = sequences[:, batch["input_ids"].shape[1] :]
        written = self.inputs.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        count = self._config.num_return_sequences
        return [written[i : i + count] for i in range(0, len(written), count)]

    def _with_prompt_cache(self, batch: dict[str, Any], sequences: int) -> dict[str, Any]:
        """Add the keys and values of the prompts to a batch. `generate` would compute them again for each sequence."""
        mask = batch["attention_mask"]
        # Without the last token: `generate` predicts the first token of a title from it.
        prompts = {"input_ids": batch["input_ids"], "attention_mask": mask, "position_ids": self.inputs.positions(mask)}
        cache = DynamicCache()
        self.model(**{name: rows[:, :-1] for name, rows in prompts.items()}, past_key_values=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(sequences)
        return {**batch, "past_key_values": cache}

    def _with_cross_attention_cache(self, batch: dict[str, Any], sequences: int) -> dict[str, Any]:
        """Add the keys and values of the texts to a batch. `generate` would compute them again for each sequence."""
        texts = len(batch["attention_mask"])
        start = torch.full((texts, 1), self._config.decoder_start_token_id, device=self.model.device)
        cross_attention = _CrossAttentionCache()
        self.model(
            **batch, decoder_input_ids=start, past_key_values=EncoderDecoderCache(DynamicCache(), cross_attention)
        )
        cross_attention.batch_repeat_interleave(sequences)
        return {**batch, "past_key_values": EncoderDecoderCache(DynamicCache(), cross_attention)}


class _CrossAttentionCache(DynamicCache):
    """Keys and values of texts: (texts × sequences, heads, tokens, width) in each layer.

    Beam search replaces a sequence only by another sequence of the same text, so this cache needs no reordering.
    """

    def reorder_cache(self, beam_idx: LongTensor) -> None:
        pass


def open_titler(folder: Path, settings: GenerateSettings) -> Titler:
    """Open a model folder for generation, on the GPU if torch can use one.

    Evaluation, the registered model and all commands use this function, so they generate the same titles. Only an
    export, which `lectern export` measures, is loaded differently.

    Raises:
        Rejected: Lectern did not write the folder, or it is damaged.
        UsageError: The settings do not fit the model.
    """
    model, tokenizer, card = load_model(folder)
    model.to(inference_device())
    return Titler(model, card.inputs(tokenizer), settings, style=card.style)


def open_pretrained(model_settings: ModelSettings, settings: GenerateSettings) -> Titler:
    """Open a checkpoint for generation without any training.

    Raises:
        Rejected, TemporaryFailure: The checkpoint is unavailable or damaged.
        UsageError: The settings do not fit the model.
    """
    model, tokenizer = open_checkpoint(model_settings, [])
    card = Card(model="", **model_settings.model_dump(include=set(Card.model_fields)))
    return Titler(model.to(inference_device()).eval(), card.inputs(tokenizer), settings)


def rank_candidates(written: list[str], text: str, style: TitleStyle, settings: GenerateSettings) -> list[str]:
    """Clean up a model's titles and return the candidates, the best first.

    For the opening of a lesson, the first candidate is the title that the course usually gives it.

    Args:
        written: Titles that the model generated.
        text: The text with its opening mark.
        style: The course's style.
        settings: Generation settings.
    """
    titles = [clean_up_title(each, style, remove_opening_mark(text)) for each in written]
    if settings.consensus:
        titles = rank_by_consensus(titles)
    if style.opening and has_opening_mark(text):
        titles = [style.opening, *(title for title in titles if title != style.opening)]
    return titles[: settings.candidates]


def rank_by_consensus(samples: list[str]) -> list[str]:
    """Return the distinct samples, first the one that shares most words with all samples.

    This is minimum Bayes risk decoding (Kumar and Byrne, "Minimum Bayes-Risk Decoding for Statistical Machine
    Translation", 2004) with the unigram F1 of ROUGE-1, without stemming.
    """
    words = [Counter(re.findall(r"\w+", title.lower())) for title in samples]
    gains = {title: sum(_unigram_f1(own, other) for other in words) for title, own in zip(samples, words, strict=True)}
    return sorted(gains, key=gains.__getitem__, reverse=True)


def _unigram_f1(one: Counter[str], other: Counter[str]) -> float:
    common = (one & other).total()
    return 2 * common / (one.total() + other.total()) if common else 0.0


def generation_config(folder: Path, settings: GenerateSettings) -> GenerationConfig:
    """Return the configuration with which transformers' own `generate` writes the same titles as a titler.

    Raises:
        Rejected: Lectern did not write the folder, or it is damaged.
    """
    inputs, _ = load_inputs(folder)
    return _generation_config(AutoConfig.from_pretrained(folder), inputs, settings)


def _generation_config(config: PretrainedConfig, inputs: Inputs, settings: GenerateSettings) -> GenerationConfig:
    """Build transformers' configuration from the settings and the model's special tokens."""
    tokenizer = inputs.tokenizer
    options: dict[str, Any] = {"num_beams": settings.num_beams, "do_sample": settings.do_sample}
    if settings.num_beams > 1:
        options |= {"length_penalty": settings.length_penalty, "early_stopping": True}
    if settings.do_sample:
        options |= {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    if inputs.family.causal:
        # An untrained model continues with a new line after the title.
        options["stop_strings"] = ["\n"]
    else:
        start, *forced = decoder_start(config, inputs)
        options |= {"decoder_start_token_id": start, "forced_bos_token_id": next(iter(forced), None)}
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        num_return_sequences=settings.consensus or settings.candidates,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **options,
    )


def decoder_start(config: PretrainedConfig, inputs: Inputs) -> list[int]:
    """Return the tokens from which an encoder-decoder starts a title: a start token, and for mBART-50 the language."""
    if not inputs.family.language:
        return [config.decoder_start_token_id]
    # Training shifts labels to the right, so a title's last token comes first. mBART's titles end with the language,
    # those of mBART-50 start with it.
    first, last = inputs.target("")
    return [last, first] if first == inputs.tokenizer.convert_tokens_to_ids(inputs.family.language) else [last]
