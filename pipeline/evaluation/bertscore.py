"""BERTScore, example by example."""

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
from pipeline.evaluation.scores import BERT_SCORES
from pipeline.files import file_aside
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.disk_budget import limit_bytes, make_room
from pipeline.models.out_of_memory import halve_when_out_of_memory
from pipeline.paths import FEATURES

_LONGEST_TITLE_TOKENS = 512
_TITLES_A_BATCH = 64

_Row = tuple[Tensor, Tensor, Tensor]


class BertScore(evaluate.Metric):
    """BERTScore's precision, recall and F1 (Zhang et al., 2020: "BERTScore: Evaluating Text Generation with BERT"),
    not rescaled, without idf weights. `compute` gives a list for each score, one value an example.

    A pair with an empty title scores 0, which also keeps it away from bert_score, where it raises. Cosines below 0
    count as 0, and F1 is taken after that: two of unlike sign would give it any value.

    Args:
        model: a place, as `pipeline.models.checkpoint_sources` finds it.
        layers: the layer whose output is compared, counted from 1.
    """

    def __init__(self, model: str, layers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.layers = layers

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="BERTScore precision, recall and F1, one an example.",
            citation="Zhang et al., 2020. BERTScore: Evaluating Text Generation with BERT. ICLR.",
            inputs_description="predictions, references: lists of titles.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        pairs = list(zip(predictions, references, strict=True))
        worded = [place for place, pair in enumerate(pairs) if all(title.strip() for title in pair)]
        precision, recall = np.zeros(len(pairs)), np.zeros(len(pairs))
        if worded:
            rows = self._rows({pairs[place][0] for place in worded}, frozenset(filter(str.strip, references)))
            # One pair at a time: of several, bert_score lets a padded place outdo a word whose best cosine is below 0.
            # It scales what it is given in place, which changes nothing when a title comes again.
            found = [greedy_cos_idf(*rows[pairs[place][1]], *rows[pairs[place][0]])[:2] for place in worded]
            precision[worded], recall[worded] = np.clip(np.array(found)[..., 0].T, 0, 1)
        total = precision + recall
        f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(pairs)), where=total > 0)
        return dict(zip(BERT_SCORES, (precision.tolist(), recall.tolist(), f1.tolist()), strict=True))

    def _rows(self, predictions: set[str], references: frozenset[str]) -> dict[str, _Row]:
        rows = _references(references, self.model, self.layers)
        # Each time anew, since bert_score writes into them.
        known = {title: tuple(part.clone() for part in row) for title, row in rows.items()}
        return known | _embed(predictions - known.keys(), load_scorer(self.model, self.layers))


def mean_bertscore(predictions: list[str], titles: list[str], model: str, layers: int) -> dict[str, float]:
    """The mean of each of BERTScore's scores; `model` and `layers` as `BertScore` takes them."""
    scores = BertScore(model, layers, keep_in_memory=True).compute(predictions=predictions, references=titles)
    return {name: fmean(values) for name, values in scores.items()}


@lru_cache(maxsize=4)
def _references(titles: frozenset[str], model: str, layers: int) -> dict[str, _Row]:
    """What `_embed` makes of `titles`, which are the same for every model, epoch and evaluation: computed once, and
    kept on disk beside what frozen layers make of texts, where `lectern clean` finds it.

    Always all of them together: in other company the last digits of a title's states are others.
    """
    scorer, ordered = load_scorer(model, layers), sorted(titles)
    file = FEATURES / f"bertscore-{_fingerprint(scorer, ordered)}" / "references.safetensors"
    try:
        kept = load_file(file)
        os.utime(file.parent)
    except (FileNotFoundError, SafetensorError):  # another process has made room meanwhile; or it is damaged
        rows = _embed(titles, scorer)
        parts = {f"{place} {n}": rows[title][n].clone() for place, title in enumerate(ordered) for n in range(3)}
        _keep(parts, file)
        return rows
    return {title: tuple(kept[f"{place} {n}"] for n in range(3)) for place, title in enumerate(ordered)}


def _keep(parts: dict[str, Tensor], file: Path) -> None:
    """Writes them to `file`, where the limit and the disk have room."""
    room = sum(part.nbytes for part in parts.values())
    if room > limit_bytes():
        return
    make_room(room, keep=file.parent)
    try:
        with file_aside(file, durable=False) as aside:
            save_file(parts, aside)
    except (OSError, SafetensorError) as error:
        if machine_errors.translate_error(error) is None:
            raise


def _fingerprint(scorer: BERTScorer, titles: list[str]) -> str:
    """Of all that their states depend on."""
    tokens = scorer._tokenizer(titles, truncation=True)["input_ids"]
    digest = hashlib.blake2b(f"{transformers.__version__} {torch.__version__} {tokens}".encode(), digest_size=16)
    for tensor in scorer._model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _embed(titles: Set[str], scorer: BERTScorer) -> dict[str, _Row]:
    """For each title the states of its tokens, (1, tokens, width), their mask and their weights, both (1, tokens)."""
    tokenizer = scorer._tokenizer
    weights = defaultdict(lambda: 1.0, {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0})
    ordered = sorted(titles, key=lambda title: (len(title), title))  # so that little is padded
    rows = {}

    def embedded(batch: Sequence[str]) -> list[_Row]:
        padded = get_bert_embedding(batch, scorer._model, tokenizer, weights, device=scorer.device)
        lengths = padded[1].sum(dim=1).int().tolist()
        return [
            tuple(part[None, :tokens] for part in row)
            for tokens, *row in zip(lengths, *(part.cpu() for part in padded), strict=True)
        ]

    for start in range(0, len(ordered), _TITLES_A_BATCH):
        batch = ordered[start : start + _TITLES_A_BATCH]
        rows |= zip(batch, halve_when_out_of_memory(embedded, batch), strict=True)
    return rows


@cache
def load_scorer(model: str, layers: int) -> BERTScorer:
    """The one scorer of this process for `model`, cut after `layers` layers.

    Raises:
        Rejected: the model cannot be had, or is not one that bert_score can use.
        UsageError: it has fewer layers.
    """
    try:
        folder = find_checkpoint(model)
    except Rejected as error:
        raise Rejected(f"evaluate.bertscore_model, or train's bertscore, in params.yaml: {error}") from None
    try:
        # bert_score takes every path with "t5" in it for a T5 model, so it is given a path without a name.
        with chdir(folder):
            scorer = BERTScorer(model_type=".", num_layers=layers)
    except AssertionError as error:
        raise UsageError(
            f"In params.yaml, evaluate.bertscore_layers is {layers}, or the layers of train's bertscore are, and "
            f"BERTScore's model '{model}' has fewer: {error}."
        ) from None
    except (OSError, ValueError) as error:
        raise Rejected(f"BERTScore's model '{model}' cannot be opened: {error}. Set another in params.yaml.") from None
    # A tokenizer without a maximum length overflows.
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, _LONGEST_TITLE_TOKENS)
    return scorer
