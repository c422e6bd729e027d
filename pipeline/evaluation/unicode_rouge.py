"""ROUGE-1 where both titles are written by models, in any script. The leaderboard's scores are `rouge_score`'s own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

# Latin letters have all their accents here, so that a title in them has the words, and scores, of `rouge_score`.
_OF_OTHER_SCRIPTS = re.compile(r"[^\W_a-z0-9\u0080-\u024f\u1e00-\u1eff]+")


class _Words(DefaultTokenizer):
    """`rouge_score`'s words, of a-z and digits, and those of other scripts. ROUGE-1 does not ask for their order."""

    def tokenize(self, text: str) -> list[str]:
        return [*super().tokenize(text), *_OF_OTHER_SCRIPTS.findall(text.lower())]


def rouge1(titles: Sequence[str], others: Sequence[str], *, stem: bool = False) -> list[float]:
    """The F-measure of each title with its other.

    Raises:
        ValueError: there are not as many of the one as of the other.
    """
    scorer = RougeScorer(["rouge1"], tokenizer=_Words(use_stemmer=stem))
    return [scorer.score(other, title)["rouge1"].fmeasure for title, other in zip(titles, others, strict=True)]
