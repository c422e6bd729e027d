"""The names of the scores, as they stand in every table and file."""

from typing import Annotated

from pydantic import AfterValidator

ROUGE_SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BERT_SCORES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
SCORES = ROUGE_SCORES + BERT_SCORES


def _known(name: str) -> str:
    if name not in SCORES:
        raise ValueError(f"no score of that name; there are {', '.join(SCORES)}")
    return name


Score = Annotated[str, AfterValidator(_known)]
"""The name of one, as a setting."""
