"""Divide transcripts into chapters and title them. Known topics and titles are kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.registry.chapter_titles import add_titles, untitled_texts
from pipeline.titles.batch_titling import BatchTitles, title_texts
from pipeline.titles.served_version import ServedVersion, find_served_version, load_segmenter
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.transcript import Transcript

_log = logging.getLogger(__name__)


def chapters_with_titles(
    transcripts: Sequence[Transcript], settings: ChaptersSettings, count: int | None, version: ServedVersion | None
) -> tuple[list[ChapteredTranscript], BatchTitles | None]:
    """Divide transcripts into chapters, titled by a version.

    Args:
        count: number of chapters of a transcript without topics; None computes it from their average length.
        version: from `find_version`.

    Returns:
        The transcripts with their chapters, in the same order, and the titles that were written; None if all titles
        were known. Discard their resume files once the chapters are saved.

    Raises:
        UsageError: a transcript is too short for `count` chapters.
        Rejected: the version or the encoder cannot be loaded.
    """
    has_unknown = any(not transcript.topics for transcript in transcripts)
    segmenter = load_segmenter(version) if version and has_unknown else None
    if segmenter:
        by = "a learned segmenter" if segmenter.weights else "content vectors"
        _log.info("Version %s finds chapters by %s: %s.", version, by, segmenter.card.reason)
    lessons = [divide_transcript(transcript, settings, count, segmenter) for transcript in transcripts]
    texts = untitled_texts(lessons)
    if version is None or not texts:
        return [add_titles(lesson, {}) for lesson in lessons], None
    batch = title_texts(texts, version)
    batch.log([*batch.shown])
    return [add_titles(lesson, batch.shown, merge=count is None) for lesson in lessons], batch


def find_version(transcripts: Sequence[Transcript]) -> ServedVersion | None:
    """Look up the served version; None if the transcripts need no titles.

    Call this before any other work, so that a missing version is reported at once.

    Raises:
        Rejected: no version is registered, and there is no pretrained model.
    """
    return None if all(_has_all_titles(transcript) for transcript in transcripts) else find_served_version()


def _has_all_titles(transcript: Transcript) -> bool:
    """Return whether each chapter of `transcript` has a title, or no words to title."""
    if not transcript.lines:
        return True
    topics = transcript.topics
    return bool(topics) and all(topic.title for topic in topics) and topics[0].seconds <= transcript.first_line_seconds
