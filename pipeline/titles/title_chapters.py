"""Divide transcripts into chapters and title them. Known topics and titles are kept."""

from __future__ import annotations

import logging
import math
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
    titled = [add_titles(lesson, batch.shown, merge=count is None) for lesson in lessons]
    has_learnt = segmenter is not None and segmenter.card.lessons > 0
    chosen = _chapter_minutes(lessons, titled) if has_learnt and not (count or settings.minutes) else {}
    batch.log([*batch.shown], [chosen.get(text, math.nan) for text in batch.shown])
    return titled, batch


def _chapter_minutes(cut: Sequence[ChapteredTranscript], titled: Sequence[ChapteredTranscript]) -> dict[str, float]:
    """Return the length in minutes of each chapter that was found, by the text that was titled.

    Of merged chapters, the first has the length of both.
    """
    minutes: dict[str, float] = {}
    for before, after in zip(cut, titled, strict=True):
        if not before.transcript.topics:
            lengths = {each.start_seconds: (each.end_seconds - each.start_seconds) / 60 for each in after.chapters}
            kept = (each for each in before.chapters if each.start_seconds in lengths)
            minutes |= {each.model_input: lengths[each.start_seconds] for each in kept}
    return minutes


def find_version(transcripts: Sequence[Transcript]) -> ServedVersion | None:
    """Look up the served version; None if the transcripts need no titles.

    Call this before any other work, so that a missing version is reported at once.

    Raises:
        Rejected: as `find_served_version`.
    """
    return None if all(_has_all_titles(transcript) for transcript in transcripts) else find_served_version()


def _has_all_titles(transcript: Transcript) -> bool:
    """Return whether each chapter of `transcript` has a title, or no words to title."""
    if not transcript.lines:
        return True
    topics = transcript.topics
    return bool(topics) and all(topic.title for topic in topics) and topics[0].seconds <= transcript.first_line_seconds
