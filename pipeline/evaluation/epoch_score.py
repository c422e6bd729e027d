"""What a training looks at after each epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.evaluation.rouge import mean_rouge

if TYPE_CHECKING:
    from pipeline.training.settings import BertScoreSettings
    from pipeline.training.trainer import Score


def epoch_score(bertscore: BertScoreSettings | None) -> Score:
    """The means of the ROUGE scores, and of BERTScore's where it is asked for.

    Its model is loaded here: what cannot be had is known before the training, and random numbers that loading draws are
    none of the training's.

    Raises:
        Rejected: the model cannot be had.
        UsageError: it has fewer layers.
    """
    if bertscore is None:
        return mean_rouge

    from pipeline.evaluation.bertscore import load_scorer, mean_bertscore  # seconds, for who asks for it

    load_scorer(bertscore.model, bertscore.layers)
    return lambda predictions, titles: {
        **mean_rouge(predictions, titles),
        **mean_bertscore(predictions, titles, bertscore.model, bertscore.layers),
    }
