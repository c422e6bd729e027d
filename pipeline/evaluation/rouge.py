"""ROUGE, example by example."""

from __future__ import annotations

from statistics import fmean

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

from pipeline.evaluation.scores import ROUGE_SCORES


class Rouge(evaluate.Metric):
    """ROUGE-1, -2, -L and -Lsum as F-measures, words stemmed (Lin, 2004: "ROUGE: A Package for Automatic Evaluation of
    Summaries"), by Google's `rouge_score`. It needs no network. `compute` gives a list for each score, one value an
    example; the mean is left to the caller, since `rouge_score`'s own aggregator is a random bootstrap.

    `rouge_score` knows the letters a-z and digits alone: a title in another script scores 0 even against itself.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="ROUGE F-measures with stemming, one an example.",
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
    """The mean of each ROUGE score."""
    scores = Rouge(keep_in_memory=True).compute(predictions=predictions, references=titles)
    return {name: fmean(values) for name, values in scores.items()}
