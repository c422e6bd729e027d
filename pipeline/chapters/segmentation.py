"""Find where the topics of a transcript change, by cutting it into the most coherent chapters.

The method is content vector segmentation (Alemi & Ginsparg, 2015: "Text Segmentation based on Semantic Word
Embeddings"). The vector of a chapter is the sum of its passages' vectors; the sum is long if they point the same way.
Of all ways to cut a transcript into a given number of chapters, dynamic programming finds the one with the largest
total length. Unlike the paper, this uses vectors of a sentence encoder, minus their mean over the transcript: the mean
is the subject that all chapters share. benchmarks/chapters.py compares the method with depth scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from pipeline.chapters.embedding import embed
from pipeline.chapters.sentence_starts import sentence_starts
from pipeline.data.word_count import count_words, space_out
from pipeline.errors import UsageError
from pipeline.settings import Section
from pipeline.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from pipeline.chapters.segmenter import Segmenter

_MOST_PASSAGES = 1500  # the work grows with their square
FEWEST_CHAPTERS = 3  # YouTube needs at least three
_LEAST_SHARE = 0.3  # of the average length: shortest chapter that log-odds may cut
DEFAULT_MINUTES = 5.0


Embed = Callable[[Sequence[str], str], np.ndarray]
"""A function from passages and the source of an encoder to a vector for each passage."""


class ChaptersSettings(Section):
    """Settings for dividing a transcript into chapters."""

    section: ClassVar[str] = "chapters"

    encoder: str = Field(description="source of the sentence encoder")
    words: int = Field(ge=1, description="window size in words; chapters start on window boundaries")
    minutes: float | None = Field(gt=0, description="average length of a chapter; null: as the segmenter has learnt")
    shortest: float = Field(ge=1, description="minimum length of a chapter in seconds")


@dataclass(frozen=True)
class Passages:
    """Lines of a transcript, joined to passages of about equal length. Chapters start with a passage.

    firsts: index of each passage's first line.
    starts: start of each passage in whole seconds, increasing; the first is 0.
    texts: text of each passage.
    """

    firsts: list[int]
    starts: np.ndarray
    texts: list[str]


def split_passages(transcript: Transcript, words: int) -> Passages:
    """Join lines to passages of at least `words` words; the last may be shorter. Each starts in a different second."""
    words = max(words, sum(count_words(line.text) for line in transcript.lines) // _MOST_PASSAGES)
    firsts, words_in_passage, before = [0], 0, 0
    for n, line in enumerate(transcript.lines):
        # Files for YouTube have whole seconds. With these starts, each line must still be in the same chapter.
        if words_in_passage >= words and int(line.seconds) > before:
            firsts.append(n)
            words_in_passage = 0
        words_in_passage += count_words(line.text)
        before = int(line.seconds)
    starts = np.array([0, *(int(transcript.lines[n].seconds) for n in firsts[1:])], dtype=float)
    ends = [*firsts[1:], len(transcript.lines)]
    texts = [" ".join(line.text for line in transcript.lines[a:b]) for a, b in zip(firsts, ends, strict=True)]
    return Passages(firsts, starts, texts)


def chapter_starts(
    transcript: Transcript,
    settings: ChaptersSettings,
    count: int | None = None,
    segmenter: Segmenter | None = None,
    embed: Embed = embed,
) -> list[float]:
    """Find the starts of the chapters in whole seconds, increasing; the first is 0.

    Args:
        settings: a segmenter replaces all but the average length by those that it was measured with.
        count: number of chapters; None computes it from the average length, at least three.
        segmenter: the served version's segmenter; None uses content vectors.
        embed: computes the vectors of passages.

    Raises:
        UsageError: the transcript is too short for `count` chapters.
        Rejected: the encoder cannot be loaded.
    """
    if segmenter:
        settings = segmenter.card.chapters_settings(settings.minutes)
    passages = split_passages(transcript, settings.words)
    wanted = count or chapter_count(transcript, settings, segmenter)
    times = np.append(passages.starts, transcript.end_seconds)
    cuts: Sequence[int] = []
    if min(wanted, len(passages.texts)) > 1:
        vectors = embed([space_out(text) for text in passages.texts], settings.encoder)
        if segmenter and segmenter.weights:
            from pipeline.chapters.boundary_features import describe_passages  # it imports this module

            log_odds = segmenter.weights.log_odds(describe_passages(transcript, passages, vectors, times))
            cuts = likely_cuts(vectors, times, wanted, settings.shortest, log_odds)
        else:
            cuts = best_cuts(vectors, times, wanted, settings.shortest)
    if count and len(cuts) + 1 < count:
        raise UsageError(
            f"{transcript.name} is too short for {count:,} chapters of {settings.shortest:g} seconds or more. "
            f"Use --count {len(cuts) + 1} or less."
        )
    firsts = [passages.firsts[cut] for cut in cuts]
    return [0.0, *sentence_starts(transcript, firsts, settings.words // 2, settings.shortest)]


def chapter_count(transcript: Transcript, settings: ChaptersSettings, segmenter: Segmenter | None = None) -> int:
    """Return the number of chapters by their average length: as set, else as the segmenter has learnt, else default."""
    learnt = segmenter.card.lengths.of(transcript.course_title) if segmenter else DEFAULT_MINUTES
    return count_by_length(transcript, settings.minutes or learnt)


def count_by_length(transcript: Transcript, minutes: float) -> int:
    """Return the number of chapters of an average length, at least three."""
    return max(FEWEST_CHAPTERS, round(transcript.end_seconds / 60 / minutes))


def likely_cuts(
    vectors: np.ndarray, times: np.ndarray, count: int, shortest: float, log_odds: np.ndarray
) -> Sequence[int]:
    """Choose cuts by content vectors and by the log-odds of each passage to begin a chapter.

    The content vectors are scaled so that their weight depends neither on the number of chapters nor on their length.
    Chapters shorter than a share of the average are cut only where no others fit.

    Args:
        log_odds: one per passage, (passages,).

    Returns:
        Indices as from `best_cuts`.
    """
    scale = np.sqrt(count / len(vectors))
    apart = max(shortest, _LEAST_SHARE * float(times[-1]) / count)
    cuts = best_cuts(vectors, times, count, apart, scale=scale, log_odds=log_odds)
    if len(cuts) + 1 < count and apart > shortest:
        return best_cuts(vectors, times, count, shortest, scale=scale, log_odds=log_odds)
    return cuts


def best_cuts(
    vectors: np.ndarray,
    times: np.ndarray,
    count: int,
    shortest: float,
    *,
    scale: float = 1.0,
    log_odds: np.ndarray | None = None,
) -> Sequence[int]:
    """Choose the passages that begin a new chapter, so that there are `count` chapters or as many as fit.

    Args:
        vectors: one vector per passage, (passages, width).
        times: start of each passage, and end of the last one, in seconds.
        shortest: minimum length of a chapter in seconds.
        scale: weight of a chapter's vector length.
        log_odds: added for each passage that begins a chapter, except the first passage.

    Returns:
        Indices of passages, increasing; one fewer than there are chapters.
    """
    passages = len(vectors)
    length = scale * _chapter_lengths(vectors)
    if log_odds is not None:
        length[1:passages] += log_odds[1:, None]
    length[times[None, :] - times[:, None] < shortest] = -np.inf
    best = np.where(np.arange(passages + 1) == 0, 0.0, -np.inf)
    previous = []  # [number of chapters - 1][end of the last chapter]: start of the last chapter
    most = -1
    for n in range(min(count, passages)):
        total = best[:, None] + length
        previous.append(total.argmax(axis=0))
        best = total.max(axis=0)
        if np.isfinite(best[passages]):
            most = n
    cuts, end = [], passages
    for n in range(most, 0, -1):
        end = previous[n][end]
        cuts.append(int(end))
    return cuts[::-1]


def _chapter_lengths(vectors: np.ndarray) -> np.ndarray:
    """Compute the vector length of each possible chapter: from passage `row` up to, but without, passage `column`."""
    centred = vectors - vectors.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    sums = np.concatenate([np.zeros((1, centred.shape[1])), np.cumsum(centred, axis=0, dtype=np.float64)])
    products = sums @ sums.T
    squares = np.diag(products)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0))
