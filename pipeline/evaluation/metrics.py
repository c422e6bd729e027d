"""How near predicted titles are to the true ones: one row of scores an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pandas as pd
from pydantic import Field

from pipeline.evaluation.scores import ROUGE_SCORES, SCORES
from pipeline.settings import Section


class EvaluateSettings(Section):
    """Settings of the scores and of the statistics on them."""

    section: ClassVar[str] = "evaluate"

    bertscore_model: str = Field(min_length=1)  # a place, as pipeline.models.checkpoint_sources finds it
    bertscore_layers: int = Field(ge=1)  # the layer whose output is compared
    confidence: float = Field(ge=0.5, lt=1)  # of every interval and every claim that a model is better


def score_titles(
    predictions: Sequence[str], references: Sequence[str], settings: EvaluateSettings, *, bertscore: bool = True
) -> pd.DataFrame:
    """Scores each predicted title against the true one.

    Returns:
        A row an example, in the order given; a column for each of `SCORES`, or of `ROUGE_SCORES` without `bertscore`.
        Every score lies between 0 and 1, and does not depend on the other examples, but for rounding.

    Raises:
        ValueError: there are not as many predictions as references.
        Rejected: BERTScore's model cannot be had.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references")
    columns = list(SCORES if bertscore else ROUGE_SCORES)
    if not len(predictions):
        return pd.DataFrame(columns=columns, dtype=float)

    # `evaluate` loads torch, which takes seconds and which nobody needs to read settings or a leaderboard.
    import evaluate

    from pipeline.evaluation.rouge import Rouge

    metrics: list[evaluate.Metric] = [Rouge(keep_in_memory=True)]
    if bertscore:
        from pipeline.evaluation.bertscore import BertScore

        metrics.append(BertScore(settings.bertscore_model, settings.bertscore_layers, keep_in_memory=True))
    scores = evaluate.combine(metrics).compute(predictions=list(predictions), references=list(references))
    return pd.DataFrame(scores)[columns]
