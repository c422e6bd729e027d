"""Divide a transcript into chapters, at its known topics or where its topics change."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from pipeline.chapters.passage_vectors import kept_vectors
from pipeline.chapters.segmentation import ChaptersSettings, chapter_starts
from pipeline.chapters.segmenter import Segmenter
from pipeline.transcripts.chapter import Chapter, ChapteredTranscript
from pipeline.transcripts.transcript import Topic, Transcript


def divide_transcript(
    transcript: Transcript, settings: ChaptersSettings, count: int | None = None, segmenter: Segmenter | None = None
) -> ChapteredTranscript:
    """Divide a transcript at its known topics; without any, where its topics change. New chapters have no titles.

    Args:
        count: number of chapters if the topics are unknown; None computes it from their average length.
        segmenter: the served version's segmenter; None uses content vectors.

    Raises:
        UsageError: the transcript is too short for `count` chapters.
        Rejected: the encoder cannot be loaded.
    """
    topics = transcript.topics or [Topic(start, "") for start in chapter_starts(transcript, settings, count, segmenter)]
    return divide_at(transcript, topics)


def divide_as_served(lesson: Transcript, segmenter: Segmenter | None) -> ChapteredTranscript:
    """Divide a lesson as a version does that does not know its topics, to measure the version.

    The vectors of its passages are kept for the next time.

    Args:
        segmenter: of the version; None for a version from before segmenters, which uses content vectors.
    """
    settings = segmenter.card.chapters_settings() if segmenter else ChaptersSettings.read()
    starts = chapter_starts(lesson, settings, segmenter=segmenter, embed=kept_vectors)
    return divide_at(replace(lesson, topics=[]), [Topic(start, "") for start in starts])


def divide_at(transcript: Transcript, topics: Sequence[Topic]) -> ChapteredTranscript:
    """Divide a transcript at the given topics, at least one. A first line before them gets a chapter at 0:00."""
    added = transcript.first_line_seconds < topics[0].seconds
    if added:
        topics = [Topic(0.0, ""), *topics]
    starts = [topic.seconds for topic in topics]
    texts: list[list[str]] = [[] for _ in topics]
    for line in transcript.lines:
        texts[bisect_right(starts, line.seconds) - 1].append(line.text)
    ends = [*starts[1:], max(transcript.end_seconds, starts[-1] + 1)]
    with_words = [number for number, lines in enumerate(texts) if lines]
    opening = with_words[0] if len(with_words) > 1 else None
    chapters = [
        Chapter(topic.seconds, end, topic.title, " ".join(lines), opens=number == opening)
        for number, (topic, end, lines) in enumerate(zip(topics, ends, texts, strict=True))
    ]
    return ChapteredTranscript(transcript, chapters, sum(bool(topic.title) for topic in topics), added)
