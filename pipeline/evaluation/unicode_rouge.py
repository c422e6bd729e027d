"""Compute ROUGE-1 between titles in any script, to compare titles that models wrote.

The leaderboard uses `pipeline.evaluation.rouge`. This module is separate because it loads without torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

# Accented Latin letters are excluded too, so that titles in Latin script score exactly as with `rouge_score`.
_OTHER_SCRIPTS = re.compile(r"[^\W_a-z0-9\u0080-\u024f\u1e00-\u1eff]+")


class _UnicodeTokenizer(DefaultTokenizer):
    """The words of `rouge_score` (a-z and digits), followed by those of other scripts. ROUGE-1 ignores their order."""

    def tokenize(self, text: str) -> list[str]:
        return [*super().tokenize(text), *_OTHER_SCRIPTS.findall(text.lower())]


def rouge1(titles: Sequence[str], others: Sequence[str], *, stem: bool = False) -> list[float]:
    """Return the F-measure of each pair of titles.

    Raises:
        ValueError: the sequences differ in length.
    """
    scorer = RougeScorer(["rouge1"], tokenizer=_UnicodeTokenizer(use_stemmer=stem))
    return [scorer.score(other, title)["rouge1"].fmeasure for title, other in zip(titles, others, strict=True)]
