"""From texts to titles: one way for every family, for training, evaluation and serving alike."""

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
from torch import Tensor
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
from pipeline.models.checkpoints import load_inputs, load_model
from pipeline.models.cross_attention import CrossAttentionCache, attend_by_text
from pipeline.models.device import inference_device
from pipeline.models.features import Encoded
from pipeline.models.inputs import Inputs
from pipeline.models.memory import in_halves
from pipeline.models.title_cleanup import PLAIN, TitleStyle, tidy
from pipeline.settings import Section, Settings, check, read_params

log = logging.getLogger(__name__)


class GenerateSettings(Settings):
    """How titles are written. A checkpoint's own generation settings are never used."""

    num_beams: int = Field(ge=1)  # sequences that beam search keeps; 1 is greedy search, or sampling
    max_new_tokens: int = Field(ge=1)
    min_new_tokens: int = Field(ge=0)
    no_repeat_ngram_size: int = Field(ge=0)  # no run of so many tokens twice; 0 allows it
    length_penalty: float  # above 0 favours long titles; of use to beam search only
    batch_size: int = Field(ge=1)  # texts at once; those whose titles are drawn come one by one
    do_sample: bool = False  # draw tokens instead of taking the likeliest
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=50, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    consensus: int = Field(default=0, ge=0)  # so many titles are drawn, and the one is best that agrees most with all
    candidates: int = Field(default=1, ge=1)  # titles for each text, the best first
    seed: int = 1  # of what is drawn

    @model_validator(mode="after")
    def _candidates_can_be_found(self) -> GenerateSettings:
        drawn = self.do_sample and self.num_beams == 1
        if self.candidates > self.num_beams and not drawn:
            raise ValueError(f"{self.candidates} candidates need num_beams {self.candidates} or more")
        if self.consensus and not drawn:
            raise ValueError("consensus is found among titles that are drawn: do_sample true, num_beams 1")
        if 0 < self.consensus < self.candidates:
            raise ValueError(f"{self.candidates} candidates need a consensus of {self.candidates} or more")
        return self

    @property
    def texts_at_once(self) -> int:
        """Texts to a batch: one where titles are drawn, since a draw in a batch depends on the other texts in it."""
        return 1 if self.do_sample else self.batch_size

    @property
    def sequences(self) -> int:
        """That are written at once of each text."""
        return max(self.num_beams, self.candidates, self.consensus)

    def turned(self, knobs: Mapping[str, Any]) -> GenerateSettings:
        """These with other values for some, and those that follow from them.

        Raises:
            ValueError: a value is out of its range.
        """
        settings = {**self.model_dump(), **knobs}
        if not settings["do_sample"] or settings["num_beams"] > 1:
            settings["consensus"] = 0  # of titles that are drawn
        if settings["consensus"]:
            settings["consensus"] = max(settings["consensus"], settings["candidates"])
        if not settings["do_sample"]:
            # Beam search finds no more titles than it keeps sequences.
            settings["num_beams"] = max(settings["num_beams"], settings["candidates"])
        return GenerateSettings.model_validate(settings)

    @classmethod
    def read(cls, model: str) -> GenerateSettings:
        """The `generate` section, with what it sets otherwise for `model`."""
        section = GenerateSection.read()
        unknown = sorted(section.models.keys() - (read_params().get("models") or {}).keys())
        if unknown:
            raise UsageError(f"params.yaml, generate.models: there is no model {', '.join(unknown)} under 'models'.")
        return check(cls, {**section.default, **section.models.get(model, {})}, at=f"generate ({model})")


class GenerateSection(Section):
    section: ClassVar[str] = "generate"

    default: dict[str, Any]
    models: dict[str, dict[str, Any]] = {}


class Titler:
    """Writes titles with one model.

    Args:
        features: the encoder's output for token ids, for a training that has it already; None runs the encoder.
        style: how the course writes its titles.

    Raises:
        UsageError: the titles may become longer than the model has positions for.
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
                f"max_new_tokens is {settings.max_new_tokens}, and this model has positions for titles of {positions} "
                "tokens. Lower it."
            )
        self._config = _generation_config(model.config, inputs, settings)
        # `generate` fills what our configuration leaves open from the model's own.
        model.generation_config = GenerationConfig()

    @torch.inference_mode()
    def titles(self, texts: list[str], *, progress: str | None = None) -> list[list[str]]:
        """For each text its candidates, the best first. Each is tidy, and may be empty.

        Args:
            progress: what a progress bar says; none is shown without it, or where nobody watches.
        """
        sources = [self.inputs.source(remove_opening_mark(text)) for text in texts]
        # By length, so that little is padded; a stable order, so that the same texts give the same batches.
        order = sorted(range(len(texts)), key=lambda i: len(sources[i]), reverse=True)
        size = self.settings.texts_at_once
        starts = range(0, len(order), size)
        written: list[list[str]] = [[] for _ in texts]
        # Drawn from a state of its own: a training that looks at titles in between goes on as if it had not.
        with torch.random.fork_rng():
            watched = progress is not None and len(starts) > 1 and sys.stderr.isatty()
            for start in tqdm(starts, desc=progress, unit="batch", disable=not watched):
                torch.manual_seed(self.settings.seed)
                chosen = order[start : start + size]
                found = in_halves(self._written, [sources[i] for i in chosen])
                for i, candidates in zip(chosen, found, strict=True):
                    written[i] = best_first(candidates, texts[i], self.style, self.settings)
        return written

    def best_titles(self, texts: list[str], *, progress: str | None = None) -> list[str]:
        """One title for each text."""
        return [candidates[0] for candidates in self.titles(texts, progress=progress)]

    def _written(self, sources: Sequence[list[int]]) -> list[list[str]]:
        """As the model writes them: of each source as many as the settings have it write."""
        batch = self.inputs.batch(sources)
        if not self.inputs.family.causal:
            features = self._features or Encoded(self.model, self.inputs, sources)
            batch = self.inputs.fed_with(features(sources), batch)
        batch = send_to_device(batch, self.model.device)
        if self.settings.sequences > 1:
            read = self._with_prompt if self.inputs.family.causal else self._with_cross_attention
            batch = read(batch, self.settings.sequences)
        sequences = self.model.generate(**batch, generation_config=self._config, tokenizer=self.inputs.tokenizer)
        if self.inputs.family.causal:
            sequences = sequences[:, batch["input_ids"].shape[1] :]
        written = self.inputs.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        count = self._config.num_return_sequences
        return [written[i : i + count] for i in range(0, len(written), count)]

    def _with_prompt(self, batch: dict[str, Any], titles_at_once: int) -> dict[str, Any]:
        """`batch` with every layer's keys and values of the prompts: `generate` would read one again for each title."""
        mask = batch["attention_mask"]
        # All but the last token, from which the first one of a title follows.
        prompts = {"input_ids": batch["input_ids"], "attention_mask": mask, "position_ids": self.inputs.positions(mask)}
        read = DynamicCache()
        self.model(**{name: rows[:, :-1] for name, rows in prompts.items()}, past_key_values=read, logits_to_keep=1)
        read.batch_repeat_interleave(titles_at_once)
        return {**batch, "past_key_values": read}

    def _with_cross_attention(self, batch: dict[str, Any], titles_at_once: int) -> dict[str, Any]:
        """`batch` with every layer's keys and values of the texts, which all titles of a text have in common."""
        texts = len(batch["attention_mask"])
        start = torch.full((texts, 1), self._config.decoder_start_token_id, device=self.model.device)
        cross_attention = CrossAttentionCache()
        found = EncoderDecoderCache(DynamicCache(), cross_attention)
        self.model(**batch, decoder_input_ids=start, past_key_values=found)
        if not attend_by_text(self.model):
            cross_attention.batch_repeat_interleave(titles_at_once)
        return {**batch, "past_key_values": EncoderDecoderCache(DynamicCache(), cross_attention)}


def open_titler(folder: Path, settings: GenerateSettings) -> Titler:
    """A titler over the model folder that Lectern wrote at `folder`, on the GPU if torch can use one.


    Evaluation, the registered model and every command open a model here, so that all of them write the same titles.

    Raises:
        Rejected: the folder is not one that Lectern wrote, or is damaged.
    """
    model, tokenizer, card = load_model(folder)
    model.to(inference_device())
    return Titler(model, card.inputs(tokenizer), settings, style=card.style)


def best_first(written: list[str], text: str, style: TitleStyle, settings: GenerateSettings) -> list[str]:
    """The candidates, tidy, among all that a model has `written` of `text`, after what its course calls an opening."""
    titles = [tidy(each, style, remove_opening_mark(text)) for each in written]
    if settings.consensus:
        titles = by_consensus(titles)
    if style.opening and has_opening_mark(text):
        titles = [style.opening, *(title for title in titles if title != style.opening)]
    return titles[: settings.candidates]


def by_consensus(drawn: list[str]) -> list[str]:
    """`drawn` without its repeats, first the title that has most words in common with all that were drawn.

    Minimum Bayes risk decoding (Kumar and Byrne, 2004) for the unigram F1 that ROUGE-1 measures, without stemming.
    """
    words = [Counter(re.findall(r"\w+", title.lower())) for title in drawn]
    gains = {title: sum(_unigram_f1(own, other) for other in words) for title, own in zip(drawn, words, strict=True)}
    return sorted(gains, key=gains.__getitem__, reverse=True)


def _unigram_f1(one: Counter[str], other: Counter[str]) -> float:
    common = (one & other).total()
    return 2 * common / (one.total() + other.total()) if common else 0.0


def generation_config(folder: Path, settings: GenerateSettings) -> GenerationConfig:
    """The configuration with which transformers' own `generate` writes what a titler over `folder` writes.

    Raises:
        Rejected: the folder is not one that Lectern wrote, or is damaged.
    """
    inputs, _ = load_inputs(folder)
    return _generation_config(AutoConfig.from_pretrained(folder), inputs, settings)


def _generation_config(config: PretrainedConfig, inputs: Inputs, settings: GenerateSettings) -> GenerationConfig:
    """All of it from `settings`, but for the token ids, which are the model's and the tokenizer's."""
    tokenizer = inputs.tokenizer
    beams = {"num_beams": settings.num_beams}
    if settings.num_beams > 1:
        beams |= {"length_penalty": settings.length_penalty, "early_stopping": True}
    sampling = {"do_sample": settings.do_sample}
    if settings.do_sample:
        sampling |= {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    if inputs.family.causal:
        # A model that was never taught to end after the title goes on with a new line.
        starts = {"stop_strings": ["\n"]}
    else:
        start, *forced = decoder_start(config, inputs)
        starts = {"decoder_start_token_id": start, "forced_bos_token_id": next(iter(forced), None)}
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        num_return_sequences=settings.consensus or settings.candidates,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **beams,
        **sampling,
        **starts,
    )


def decoder_start(config: PretrainedConfig, inputs: Inputs) -> list[int]:
    """The tokens from which a decoder with an encoder of its own goes on: its start token, and the language if that
    comes first in a title."""
    if not inputs.family.language:
        return [config.decoder_start_token_id]
    # As in training, where the decoder is given a title's last token first: mBART's titles end with their language,
    # mBART-50's begin with it.
    first, last = inputs.target("")
    return [last, first] if first == inputs.tokenizer.convert_tokens_to_ids(inputs.family.language) else [last]
