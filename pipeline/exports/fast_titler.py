"""Write titles with an exported version, as `pipeline.models.generation` does with a model.

Prompts, beams, lengths and the clean-up of titles are the same. Three things differ: sampled titles are others for the
same seed; `no_repeat_ngram_size` ignores the prompt of a causal model; and beam search ends slightly differently.
`lectern export` measures the effect.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from pipeline.data.lesson_openings import remove_opening_mark
from pipeline.errors import Rejected
from pipeline.exports.export_card import ENGINE, ExportCard, damaged
from pipeline.models.checkpoints import load_inputs
from pipeline.models.generation import GenerateSettings, rank_candidates
from pipeline.models.inputs import Inputs

# Largest difference in tokens between the prompts of a batch. CTranslate2 reads as many tokens as the shortest prompt
# has at once, and each further token in a step of its own.
_PROMPTS_APART = 4


class FastTitler:
    """A titler for a folder that `lectern export` wrote.

    Args:
        settings: the generation settings; None for the version's own.
        threads: CPU threads per batch; None for torch's number.

    Raises:
        Rejected: the folder is not an export, or is damaged.
    """

    def __init__(self, folder: Path, settings: GenerateSettings | None = None, *, threads: int | None = None) -> None:
        self.card = ExportCard.read(folder)
        self.settings = settings or self.card.generate
        try:
            inputs, card = load_inputs(folder)
            kind = _Causal if inputs.family.causal else _WithEncoder
            self._writer = kind(folder / ENGINE, inputs, self.card, threads or torch.get_num_threads())
        except (Rejected, RuntimeError) as error:
            raise damaged(folder) from error
        self.style = card.style
        self._inputs = inputs

    def titles(
        self, texts: Sequence[str], changes: Mapping[str, Any] | None = None, *, progress: str | None = None
    ) -> list[list[str]]:
        """Write candidates for each text, best first. They are cleaned up, and may be empty.

        Args:
            changes: settings that differ from the titler's.
            progress: the label of a progress bar, shown in a terminal only; None for no bar.

        Raises:
            ValueError: a setting is out of range.
        """
        settings = self.settings.with_overrides(changes or {})
        sources = [self._inputs.source(remove_opening_mark(text)) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(sources[i]), reverse=True)
        written: list[list[str]] = [[] for _ in texts]
        bar = tqdm(total=len(order), desc=progress, unit="text", disable=progress is None or not sys.stderr.isatty())
        with bar:
            for batch in self._writer.batches(order, sources, settings.texts_at_once):
                ctranslate2.set_random_seed(settings.seed)
                found = self._writer.write([sources[i] for i in batch], settings)
                for i, candidates in zip(batch, found, strict=True):
                    written[i] = rank_candidates(candidates, texts[i], self.style, settings)
                bar.update(len(batch))
        return written

    def best_titles(self, texts: Sequence[str], *, progress: str | None = None) -> list[str]:
        """Write one title for each text."""
        return [candidates[0] for candidates in self.titles(texts, progress=progress)]


class _WithEncoder:
    """Writer for encoder-decoder models."""

    def __init__(self, folder: Path, inputs: Inputs, card: ExportCard, threads: int) -> None:
        self._translator = ctranslate2.Translator(str(folder), compute_type=card.weights, intra_threads=threads)
        self._tokenizer = inputs.tokenizer
        self._start = self._tokenizer.convert_ids_to_tokens(card.decoder_start)

    @staticmethod
    def batches(order: list[int], sources: list[list[int]], size: int) -> Iterator[list[int]]:
        return (order[start : start + size] for start in range(0, len(order), size))

    def write(self, sources: list[list[int]], settings: GenerateSettings) -> list[list[str]]:
        results = self._translator.translate_batch(
            [self._tokenizer.convert_ids_to_tokens(source) for source in sources],
            target_prefix=[self._start] * len(sources),
            max_input_length=0,
            max_decoding_length=settings.max_new_tokens,
            min_decoding_length=settings.min_new_tokens,
            **_search(settings),
        )
        ids = [[self._tokenizer.convert_tokens_to_ids(tokens) for tokens in result.hypotheses] for result in results]
        return [self._tokenizer.batch_decode(titles, skip_special_tokens=True) for titles in ids]


class _Causal:
    """Writer for causal models."""

    def __init__(self, folder: Path, inputs: Inputs, card: ExportCard, threads: int) -> None:
        self._generator = ctranslate2.Generator(str(folder), compute_type=card.weights, intra_threads=threads)
        self._tokenizer = inputs.tokenizer
        assert inputs.prompt, "a causal model has a prompt"
        prefix, _ = inputs.prompt  # the same for all texts, so CTranslate2 reads it once
        self._prefix_length = len(prefix)
        self._static = self._tokenizer.convert_ids_to_tokens(prefix)
        self._ends = [self._tokenizer.eos_token_id, *_tokens_with_a_new_line(self._tokenizer)]

    @staticmethod
    def batches(order: list[int], sources: list[list[int]], size: int) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in order:
            if len(batch) == size or (batch and len(sources[batch[0]]) - len(sources[i]) > _PROMPTS_APART):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def write(self, sources: list[list[int]], settings: GenerateSettings) -> list[list[str]]:
        results = self._generator.generate_batch(
            [self._tokenizer.convert_ids_to_tokens(source[self._prefix_length :]) for source in sources],
            static_prompt=self._static,
            include_prompt_in_result=False,
            end_token=self._ends,
            return_end_token=True,  # one token may hold the last full stop and a new line
            max_length=settings.max_new_tokens,
            min_length=settings.min_new_tokens,
            **_search(settings),
        )
        return [self._tokenizer.batch_decode(result.sequences_ids, skip_special_tokens=True) for result in results]


def _search(settings: GenerateSettings) -> dict[str, Any]:
    """Return the options that translators and generators share."""
    search: dict[str, Any] = {
        "beam_size": settings.num_beams,
        "num_hypotheses": settings.consensus or settings.candidates,
        "no_repeat_ngram_size": settings.no_repeat_ngram_size,
    }
    if settings.num_beams > 1:
        search["length_penalty"] = settings.length_penalty
    if settings.do_sample:
        search |= {
            "sampling_topk": settings.top_k,
            "sampling_topp": settings.top_p,
            "sampling_temperature": settings.temperature,
        }
    return search


def _tokens_with_a_new_line(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    return [place for token, place in vocabulary.items() if "\n" in tokenizer.convert_tokens_to_string([token])]
