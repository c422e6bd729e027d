"""Where the topics of a talk change: its lines, cut into the most coherent chapters.

Content vector segmentation (Alemi & Ginsparg, 2015: "Text Segmentation based on Semantic Word Embeddings"): of all ways
to cut a talk into so many chapters, the one whose chapters' vectors, each the sum of the vectors of what is said in it,
have the largest lengths in all. A sum is long where its parts point one way. Dynamic programming finds the best cut.
The vectors are those of a sentence encoder instead of single words', less the talk's mean, which is what all of it is
about. benchmarks/chapters.py compares it with depth scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from pipeline.chapters.embedding import embed
from pipeline.errors import UsageError
from pipeline.settings import Section
from pipeline.transcripts.transcript import Talk

_MOST_PASSAGES = 1500  # of a talk; the work grows with their square
_FEWEST_CHAPTERS = 3  # YouTube shows no fewer


class ChaptersSettings(Section):
    """How a talk is cut."""

    section: ClassVar[str] = "chapters"

    encoder: str = Field(description="the place of the sentence encoder")
    words: int = Field(ge=1, description="words that are compared at once; a chapter begins where they do")
    minutes: float = Field(gt=0, description="mean length of a chapter")
    shortest: float = Field(ge=1, description="seconds that a chapter has at least")


@dataclass(frozen=True)
class Passages:
    """Lines of a talk, joined to passages of about equal length. A chapter begins with a passage.

    firsts: the position of each passage's first line.
    starts: when each begins, in whole seconds, rising; the first at 0.
    texts: what is said in each.
    """

    firsts: list[int]
    starts: np.ndarray
    texts: list[str]


def passages_of(talk: Talk, words: int) -> Passages:
    """Passages of at least `words` words, but for the last; none begins in the second in which the one before does."""
    words = max(words, sum(len(line.text.split()) for line in talk.lines) // _MOST_PASSAGES)
    firsts, spoken, before = [0], 0, 0
    for n, line in enumerate(talk.lines):
        # In whole seconds, as YouTube writes them: read back, the line still stands in its chapter.
        if spoken >= words and int(line.seconds) > before:
            firsts.append(n)
            spoken = 0
        spoken += len(line.text.split())
        before = int(line.seconds)
    starts = np.array([0, *(int(talk.lines[n].seconds) for n in firsts[1:])], dtype=float)
    ends = [*firsts[1:], len(talk.lines)]
    texts = [" ".join(line.text for line in talk.lines[a:b]) for a, b in zip(firsts, ends, strict=True)]
    return Passages(firsts, starts, texts)


def chapter_starts(talk: Talk, settings: ChaptersSettings, count: int | None = None) -> list[float]:
    """When the chapters of `talk` begin: in whole seconds, rising, the first at 0.

    Args:
        count: how many there are; as many as `settings.minutes` gives, and three at least, if it is None.

    Raises:
        UsageError: `count` is more than the talk has room for.
    """
    passages = passages_of(talk, settings.words)
    wanted = count or max(_FEWEST_CHAPTERS, round(talk.end_seconds / 60 / settings.minutes))
    times = np.append(passages.starts, talk.end_seconds)
    if min(wanted, len(passages.texts)) == 1:
        cuts = []
    else:
        cuts = best_cuts(embed(passages.texts, settings.encoder), times, wanted, settings.shortest)
    if count and len(cuts) + 1 < count:
        raise UsageError(
            f"{talk.name} has no room for {count:,} chapters of {settings.shortest:g} seconds or more: "
            f"the most is {len(cuts) + 1:,}. Ask for fewer with --count."
        )
    return [0.0, *(float(passages.starts[cut]) for cut in cuts)]


def best_cuts(vectors: np.ndarray, times: np.ndarray, count: int, shortest: float) -> Sequence[int]:
    """Before which passages to cut, so that there are `count` chapters, or as many as there is room for.

    Args:
        vectors: of the passages, (passages, width).
        times: when each passage begins, and when the last one ends; in seconds.
        shortest: seconds that a chapter has at least.
    """
    passages = len(vectors)
    length = _lengths(vectors)
    length[times[None, :] - times[:, None] < shortest] = -np.inf
    best = np.where(np.arange(passages + 1) == 0, 0.0, -np.inf)
    before = []  # for each number of chapters: the cut ahead of the last one, by where that one ends
    room = -1
    for n in range(min(count, passages)):
        total = best[:, None] + length
        before.append(total.argmax(axis=0))
        best = total.max(axis=0)
        if np.isfinite(best[passages]):
            room = n
    cuts, end = [], passages
    for n in range(room, 0, -1):
        end = before[n][end]
        cuts.append(int(end))
    return cuts[::-1]


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """The length of the sum of the vectors from passage `row` up to, and without, `column`."""
    apart = vectors - vectors.mean(axis=0)
    apart /= np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-9)
    sums = np.concatenate([np.zeros((1, apart.shape[1])), np.cumsum(apart, axis=0, dtype=np.float64)])
    products = sums @ sums.T
    squares = np.diag(products)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0))
