"""BERTScore, example by example."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from functools import cache
from typing import Any

import datasets
import evaluate
import numpy as np
from bert_score import BERTScorer
from bert_score.utils import get_bert_embedding, greedy_cos_idf
from torch import Tensor

from pipeline.errors import Misused, Refused
from pipeline.evaluation.scores import BERT_SCORES
from pipeline.models.places import find

_LONGEST_TITLE_TOKENS = 512
_TITLES_A_BATCH = 64


class BertScore(evaluate.Metric):
    """BERTScore's precision, recall and F1 (Zhang et al., 2020: "BERTScore: Evaluating Text Generation with BERT"),
    not rescaled, without idf weights. `compute` gives a list for each score, one value an example.

    A pair with an empty title scores 0, which also keeps it away from bert_score, where it raises. Cosines below 0
    count as 0, and F1 is taken after that: two of unlike sign would give it any value.

    Args:
        model: a place, as `pipeline.models.places` finds it.
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
            rows = _embed({title for place in worded for title in pairs[place]}, load_scorer(self.model, self.layers))
            # One pair at a time: of several, bert_score lets a padded place outdo a word whose best cosine is below 0.
            # It scales what it is given in place, which changes nothing when a title comes again.
            found = [greedy_cos_idf(*rows[pairs[place][1]], *rows[pairs[place][0]])[:2] for place in worded]
            precision[worded], recall[worded] = np.clip(np.array(found)[..., 0].T, 0, 1)
        total = precision + recall
        f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(pairs)), where=total > 0)
        return dict(zip(BERT_SCORES, (precision.tolist(), recall.tolist(), f1.tolist()), strict=True))


def _embed(titles: set[str], scorer: BERTScorer) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """For each title the states of its tokens, (1, tokens, width), their mask and their weights, both (1, tokens)."""
    tokenizer = scorer._tokenizer
    weights = defaultdict(lambda: 1.0, {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0})
    ordered = sorted(titles, key=lambda title: (len(title), title))  # so that little is padded
    rows = {}
    for start in range(0, len(ordered), _TITLES_A_BATCH):
        batch = ordered[start : start + _TITLES_A_BATCH]
        padded = get_bert_embedding(batch, scorer._model, tokenizer, weights, device=scorer.device)
        for title, *row in zip(batch, *(part.cpu() for part in padded), strict=True):
            tokens = int(row[1].sum())
            rows[title] = tuple(part[None, :tokens] for part in row)
    return rows


@cache
def load_scorer(model: str, layers: int) -> BERTScorer:
    """The one scorer of this process for `model`, cut after `layers` layers.

    Raises:
        Refused: the model cannot be had, or is not one that bert_score can use.
        Misused: it has fewer layers.
    """
    try:
        folder = find(model)
    except Refused as error:
        raise Refused(f"evaluate.bertscore_model in params.yaml: {error}") from None
    try:
        # bert_score takes every path with "t5" in it for a T5 model, so it is given a path without a name.
        with contextlib.chdir(folder):
            scorer = BERTScorer(model_type=".", num_layers=layers)
    except AssertionError as error:
        raise Misused(
            f"evaluate.bertscore_layers is {layers}, which BERTScore's model '{model}' has not: {error}."
        ) from None
    except (OSError, ValueError) as error:
        raise Refused(f"BERTScore's model '{model}' cannot be opened: {error}. Set another in params.yaml.") from None
    # A tokenizer without a maximum length overflows.
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, _LONGEST_TITLE_TOKENS)
    return scorer
