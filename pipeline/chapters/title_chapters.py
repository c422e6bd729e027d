"""Divide transcripts into chapters and title them. Known topics and titles are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.data.workbook_files import fit_into_cell
from pipeline.registry.fallback_title import Shown
from pipeline.titles.batch_titling import BatchTitles, title_texts
from pipeline.titles.served_version import find_served_version
from pipeline.titles.talk_titles import choose_talk_titles
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.transcript import Transcript


def chapters_with_titles(
    transcripts: Sequence[Transcript], settings: ChaptersSettings, count: int | None = None
) -> tuple[list[ChapteredTranscript], BatchTitles | None]:
    """Divide transcripts into chapters, titled by the served version.

    The version is looked up first, so that a missing one is reported before any work.

    Args:
        count: number of chapters of a transcript without topics; None computes it from `settings.minutes`.

    Returns:
        The transcripts with their chapters, in the same order, and the titles that were written; None if all titles
        were known. Discard their resume files once the chapters are saved.

    Raises:
        UsageError: a transcript is too short for `count` chapters.
        Rejected: no version is registered, or the version or the encoder cannot be loaded.
    """
    version = None if all(_has_all_titles(transcript) for transcript in transcripts) else find_served_version()
    lessons = [divide_transcript(transcript, settings, count) for transcript in transcripts]
    if version is None:
        return [add_titles(lesson, {}) for lesson in lessons], None
    batch = title_texts(untitled_texts(lessons), version)
    batch.log([*batch.shown])
    return [add_titles(lesson, batch.shown) for lesson in lessons], batch


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


def add_titles(lesson: ChapteredTranscript, shown: Mapping[str, Shown]) -> ChapteredTranscript:
    """Give each untitled chapter a title that no other chapter of its talk has, else `Chapter` and its number.

    Args:
        shown: by model input, the title of the chapter by itself, with its candidates.
    """
    titles = _choose_titles(lesson, shown)
    chapters, unnamed, keyphrases = [], [], []
    for number, chapter in enumerate(lesson.chapters, start=1):
        chosen = titles.get(number, Shown(chapter.title, False))
        title = chapter.title or " ".join(fit_into_cell(chosen.title).split())
        if not title:
            title = f"Chapter {number}"  # is_numbered_title recognises it
            unnamed.append(number)
        elif chosen.fallback:
            keyphrases.append(number)
        chapters.append(replace(chapter, title=title))
    return replace(lesson, chapters=chapters, unnamed=tuple(unnamed), keyphrases=tuple(keyphrases))


def _choose_titles(lesson: ChapteredTranscript, shown: Mapping[str, Shown]) -> dict[int, Shown]:
    """Choose the missing titles of a talk together, by the number of the chapter."""
    missing = {
        number: chapter.model_input
        for number, chapter in enumerate(lesson.chapters, start=1)
        if not chapter.title and chapter.model_input in shown
    }
    known = [chapter.title for chapter in lesson.chapters if chapter.title]
    chosen = choose_talk_titles([shown[text] for text in missing.values()], [*missing.values()], known)
    return dict(zip(missing, chosen, strict=True))


def is_numbered_title(title: str) -> bool:
    """Return whether `title` is one that `add_titles` gives a chapter without a title."""
    return bool(re.fullmatch(r"Chapter \d+", title))
