"""Score predicted titles against the true titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
from pydantic import Field

from pipeline.evaluation.score_names import ROUGE_SCORES, SCORES
from pipeline.settings import Section

if TYPE_CHECKING:
    from pipeline.training.settings import BertScoreSettings
    from pipeline.training.trainer import Score


class EvaluateSettings(Section):
    """Settings of the scores and their statistics."""

    section: ClassVar[str] = "evaluate"

    bertscore_model: str = Field(min_length=1)  # a checkpoint, as pipeline.models.checkpoint_sources finds it
    bertscore_layers: int = Field(ge=1)  # the layer whose output is compared
    confidence: float = Field(ge=0.5, lt=1)  # of all intervals, and of all claims that a model is better


def score_titles(
    predictions: Sequence[str], references: Sequence[str], settings: EvaluateSettings, *, bertscore: bool = True
) -> pd.DataFrame:
    """Score each predicted title against the true one.

    Args:
        predictions: the predicted titles.
        references: the true titles.
        settings: the model of BERTScore.
        bertscore: whether to compute BERTScore too.

    Returns:
        One row per example, with a column for each of `SCORES`, or of `ROUGE_SCORES` without `bertscore`. All scores
        are between 0 and 1, and do not depend on the other examples, except for rounding.

    Raises:
        ValueError: the numbers of predictions and references differ.
        Rejected: the model of BERTScore cannot be reached.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references")
    columns = list(SCORES if bertscore else ROUGE_SCORES)
    if not len(predictions):
        return pd.DataFrame(columns=columns, dtype=float)

    # Imported here, because `evaluate` loads torch for seconds, and reading settings or a leaderboard does not need it.
    import evaluate

    from pipeline.evaluation.rouge import Rouge

    metrics: list[evaluate.Metric] = [Rouge(keep_in_memory=True)]
    if bertscore:
        from pipeline.evaluation.bertscore import BertScore

        metrics.append(BertScore(settings.bertscore_model, settings.bertscore_layers, keep_in_memory=True))
    scores = evaluate.combine(metrics).compute(predictions=list(predictions), references=list(references))
    return pd.DataFrame(scores)[columns]


def epoch_score(bertscore: BertScoreSettings | None) -> Score:
    """Return the function that scores titles after each epoch of a training: mean ROUGE, and optionally mean BERTScore.

    The model of BERTScore is loaded at once. So a missing model is reported before the training, and the random numbers
    that loading draws do not change the training.

    Raises:
        Rejected: the model of BERTScore cannot be reached.
        UsageError: the model of BERTScore has fewer layers.
    """
    from pipeline.evaluation.rouge import mean_rouge

    if bertscore is None:
        return mean_rouge

    from pipeline.evaluation.bertscore import load_scorer, mean_bertscore

    load_scorer(bertscore.model, bertscore.layers)
    return lambda predictions, titles: {
        **mean_rouge(predictions, titles),
        **mean_bertscore(predictions, titles, bertscore.model, bertscore.layers),
    }
