"""Divide transcripts into chapters and title them. Known topics and titles are kept."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.titles.batch_titling import BatchTitles, title_texts
from pipeline.titles.served_version import ServedVersion, find_served_version, load_segmenter
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.lesson_names import one_line
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
    batch.log([*batch.titles])
    return [add_titles(lesson, batch.titles, batch.fallbacks) for lesson in lessons], batch


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


def untitled_texts(lessons: Sequence[ChapteredTranscript]) -> list[str]:
    """List the model inputs of the chapters that have words but no title."""
    chapters = [chapter for lesson in lessons for chapter in lesson.chapters]
    return [chapter.model_input for chapter in chapters if chapter.text and not chapter.title]


def add_titles(
    lesson: ChapteredTranscript, titles: Mapping[str, str], fallbacks: Collection[str] = ()
) -> ChapteredTranscript:
    """Give each untitled chapter its title, else `Chapter` and its number. A speaker's name is no title.

    Args:
        titles: titles by model input.
        fallbacks: the model inputs whose titles are keyphrases.
    """
    chapters, unnamed, keyphrases = [], [], []
    for number, chapter in enumerate(lesson.chapters, start=1):
        title = chapter.title or one_line(titles.get(chapter.model_input, ""))
        if not title or (not chapter.title and _names_a_speaker(title, lesson.transcript)):
            title = f"Chapter {number}"  # is_numbered_title recognises it
            unnamed.append(number)
        elif not chapter.title and chapter.model_input in fallbacks:
            keyphrases.append(number)
        chapters.append(replace(chapter, title=title))
    return replace(lesson, chapters=chapters, unnamed=tuple(unnamed), keyphrases=tuple(keyphrases))


def _names_a_speaker(title: str, transcript: Transcript) -> bool:
    """Return whether a title consists of words of a speaker's name."""
    words = {*title.casefold().split()}
    return any(words <= {*line.speaker.casefold().split()} for line in transcript.lines if line.speaker)


def is_numbered_title(title: str) -> bool:
    """Return whether `title` is one that `add_titles` gives a chapter without a title."""
    return bool(re.fullmatch(r"Chapter \d+", title))
