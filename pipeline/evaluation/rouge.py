"""Compute ROUGE for each example."""

from __future__ import annotations

from statistics import fmean

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

from pipeline.evaluation.score_names import ROUGE_SCORES


class Rouge(evaluate.Metric):
    """ROUGE-1, -2, -L and -Lsum as F-measures with stemming, by Google's `rouge_score`, without a network.

    Lin, 2004: "ROUGE: A Package for Automatic Evaluation of Summaries".

    `compute` returns one value per example. The caller computes the mean, because `rouge_score` aggregates with a
    random bootstrap. `rouge_score` reads only the letters a-z and digits, so a title in another script always scores 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="ROUGE F-measures with stemming for each example.",
            citation="Lin, 2004. ROUGE: A Package for Automatic Evaluation of Summaries. ACL workshop.",
            inputs_description="predictions, references: lists of titles.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        scorer = RougeScorer(ROUGE_SCORES, use_stemmer=True)
        scored = [
            scorer.score(target=reference, prediction=prediction)
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return {name: [example[name].fmeasure for example in scored] for name in ROUGE_SCORES}


def mean_rouge(predictions: list[str], titles: list[str]) -> dict[str, float]:
    """Return the mean of each ROUGE score."""
    scores = Rouge(keep_in_memory=True).compute(predictions=predictions, references=titles)
    return {name: fmean(values) for name, values in scores.items()}
