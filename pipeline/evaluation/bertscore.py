"""Compute BERTScore for each example."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence, Set
from contextlib import chdir
from functools import cache, lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
import transformers
from bert_score import BERTScorer
from bert_score.utils import get_bert_embedding, greedy_cos_idf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import machine_errors
from pipeline.errors import Rejected, UsageError
from pipeline.evaluation.score_names import BERT_SCORES
from pipeline.files import file_aside
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.disk_budget import limit_bytes, make_room
from pipeline.models.out_of_memory import halve_when_out_of_memory
from pipeline.paths import FEATURES

_MAX_TITLE_TOKENS = 512
_BATCH_SIZE = 64

_Row = tuple[Tensor, Tensor, Tensor]


class BertScore(evaluate.Metric):
    """BERTScore precision, recall and F1, without rescaling and idf weights. `compute` returns one value per example.

    Zhang et al., 2020: "BERTScore: Evaluating Text Generation with BERT".

    A pair with an empty title scores 0, because bert_score fails on empty texts. Negative cosines count as 0 before F1
    is computed, because F1 of two numbers with different signs is unbounded.

    Args:
        model: a checkpoint, as `pipeline.models.checkpoint_sources` finds it.
        layers: the layer whose output is compared, starting at 1.
    """

    def __init__(self, model: str, layers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.layers = layers

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="BERTScore precision, recall and F1 for each example.",
            citation="Zhang et al., 2020. BERTScore: Evaluating Text Generation with BERT. ICLR.",
            inputs_description="predictions, references: lists of titles.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        pairs = list(zip(predictions, references, strict=True))
        with_words = [n for n, pair in enumerate(pairs) if all(title.strip() for title in pair)]
        precision, recall = np.zeros(len(pairs)), np.zeros(len(pairs))
        if with_words:
            rows = self._rows({pairs[n][0] for n in with_words}, frozenset(filter(str.strip, references)))
            # One pair at a time: with several, bert_score prefers padding to a word whose best cosine is negative.
            # It normalises its inputs in place, which does not matter for repeated titles.
            found = [greedy_cos_idf(*rows[pairs[n][1]], *rows[pairs[n][0]])[:2] for n in with_words]
            precision[with_words], recall[with_words] = np.clip(np.array(found)[..., 0].T, 0, 1)
        total = precision + recall
        f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(pairs)), where=total > 0)
        return dict(zip(BERT_SCORES, (precision.tolist(), recall.tolist(), f1.tolist()), strict=True))

    def _rows(self, predictions: set[str], references: frozenset[str]) -> dict[str, _Row]:
        rows = _references(references, self.model, self.layers)
        # Clones, because bert_score changes its inputs.
        known = {title: tuple(part.clone() for part in row) for title, row in rows.items()}
        return known | _embed(predictions - known.keys(), load_scorer(self.model, self.layers))


def mean_bertscore(predictions: list[str], titles: list[str], model: str, layers: int) -> dict[str, float]:
    """Return the mean of each BERTScore score; for `model` and `layers` see `BertScore`."""
    scores = BertScore(model, layers, keep_in_memory=True).compute(predictions=predictions, references=titles)
    return {name: fmean(values) for name, values in scores.items()}


@lru_cache(maxsize=4)
def _references(titles: frozenset[str], model: str, layers: int) -> dict[str, _Row]:
    """Return the embeddings of the true titles, from a cache on disk.

    The true titles are the same for every model, epoch and evaluation. They are always embedded together: with other
    titles in a batch, the last digits would change. `lectern clean` removes the cache.
    """
    scorer, ordered = load_scorer(model, layers), sorted(titles)
    file = FEATURES / f"bertscore-{_fingerprint(scorer, ordered)}" / "references.safetensors"
    try:
        kept = load_file(file)
        os.utime(file.parent)
    except (FileNotFoundError, SafetensorError):  # another process removed it, or it is damaged
        rows = _embed(titles, scorer)
        parts = {f"{place} {n}": rows[title][n].clone() for place, title in enumerate(ordered) for n in range(3)}
        _write_cache(parts, file)
        return rows
    return {title: tuple(kept[f"{place} {n}"] for n in range(3)) for place, title in enumerate(ordered)}


def _write_cache(parts: dict[str, Tensor], file: Path) -> None:
    """Write embeddings to the cache, if the cache limit and the disk allow it."""
    size = sum(part.nbytes for part in parts.values())
    if size > limit_bytes():
        return
    make_room(size, keep=file.parent)
    try:
        with file_aside(file, durable=False) as aside:
            save_file(parts, aside)
    except (OSError, SafetensorError) as error:
        if machine_errors.translate_error(error) is None:
            raise


def _fingerprint(scorer: BERTScorer, titles: list[str]) -> str:
    """Hash everything that the embeddings depend on: library versions, tokens and weights."""
    tokens = scorer._tokenizer(titles, truncation=True)["input_ids"]
    digest = hashlib.blake2b(f"{transformers.__version__} {torch.__version__} {tokens}".encode(), digest_size=16)
    for tensor in scorer._model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _embed(titles: Set[str], scorer: BERTScorer) -> dict[str, _Row]:
    """Return for each title its hidden states (1, tokens, width), its mask and its token weights (1, tokens)."""
    tokenizer = scorer._tokenizer
    weights = defaultdict(lambda: 1.0, {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0})
    ordered = sorted(titles, key=lambda title: (len(title), title))  # batches of similar length need little padding
    rows: dict[str, _Row] = {}

    def embedded(batch: Sequence[str]) -> list[_Row]:
        padded = get_bert_embedding(batch, scorer._model, tokenizer, weights, device=scorer.device)
        lengths = padded[1].sum(dim=1).int().tolist()
        return [
            tuple(part[None, :tokens] for part in row)
            for tokens, *row in zip(lengths, *(part.cpu() for part in padded), strict=True)
        ]

    for start in range(0, len(ordered), _BATCH_SIZE):
        batch = ordered[start : start + _BATCH_SIZE]
        rows |= zip(batch, halve_when_out_of_memory(embedded, batch), strict=True)
    return rows


@cache
def load_scorer(model: str, layers: int) -> BERTScorer:
    """Load a BERTScore model once per process, cut after `layers` layers.

    Raises:
        Rejected: the model cannot be reached, or bert_score cannot use it.
        UsageError: the model has fewer layers.
    """
    try:
        folder = find_checkpoint(model)
    except Rejected as error:
        raise Rejected(f"params.yaml, evaluate.bertscore_model or train.bertscore.model: {error}") from None
    try:
        # bert_score treats every path with "t5" in it as a T5 model, so it gets the path ".".
        with chdir(folder):
            scorer = BERTScorer(model_type=".", num_layers=layers)
    except AssertionError as error:
        raise UsageError(
            f"params.yaml, evaluate.bertscore_layers or train.bertscore.layers: '{model}' has fewer than {layers} "
            f"layers ({error}). Set a smaller number."
        ) from None
    except (OSError, ValueError) as error:
        raise Rejected(f"BERTScore cannot open the model '{model}': {error}. Set another one in params.yaml.") from None
    # A tokenizer without a maximum length overflows.
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, _MAX_TITLE_TOKENS)
    return scorer
