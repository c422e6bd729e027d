"""Chapters of whole talks: known topics are kept, unknown ones found, and titles written where there are none."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import replace

from pipeline.chapters.segmentation import ChaptersSettings, chapter_starts
from pipeline.data.workbook_files import fit_into_cell
from pipeline.monitoring.batch_log import log_batch
from pipeline.titles.titling import Titled, present_version, title_texts
from pipeline.transcripts.chapter import Chapter, Chaptered
from pipeline.transcripts.transcript import Talk, Topic


def give_chapters(
    talks: Sequence[Talk], settings: ChaptersSettings, count: int | None = None
) -> tuple[list[Chaptered], Titled | None]:
    """The chapters of `talks`, titled by the version that counts, which is asked for ahead of the work.

    Args:
        count: chapters of a talk whose topics are not known; by `settings.minutes` if it is None.

    Returns:
        The talks in their order, and the titles that were written, to be forgotten once the chapters are written down;
        None where all were known.

    Raises:
        UsageError: a talk has no room for `count` chapters.
        Rejected: nothing is registered, or the version or the encoder cannot be loaded.
    """
    version = None if all(_has_titles(talk) for talk in talks) else present_version()
    found = [cut(talk, settings, count) for talk in talks]
    titled = None
    if version:
        titled = title_texts(lacking(found), version)
        log_batch([*titled.titles], [titled.written(text) for text in titled.titles], str(version))
    titles, fallbacks = (titled.titles, titled.fallbacks) if titled else ({}, ())
    return [entitled(talk, titles, fallbacks) for talk in found], titled


def _has_titles(talk: Talk) -> bool:
    if not talk.lines:
        return True  # there is nothing that one could be written for
    return bool(talk.topics) and all(topic.title for topic in talk.topics) and talk.topics[0].seconds <= talk.begins


def cut(talk: Talk, settings: ChaptersSettings, count: int | None = None) -> Chaptered:
    """`talk` in chapters that begin at its topics, or where its topics are found if it has none; without new titles.

    Raises:
        UsageError: `count` is more than the talk has room for.
        Rejected: the encoder cannot be had.
    """
    return divide(talk, talk.topics or [Topic(start, "") for start in chapter_starts(talk, settings, count)])


def divide(talk: Talk, topics: Sequence[Topic]) -> Chaptered:
    """`talk` in chapters that begin at `topics`, of which there is one at least, and at its first line."""
    added = talk.begins < topics[0].seconds
    if added:
        topics = [Topic(0.0, ""), *topics]
    starts = [topic.seconds for topic in topics]
    said: list[list[str]] = [[] for _ in topics]
    for line in talk.lines:
        said[bisect_right(starts, line.seconds) - 1].append(line.text)
    ends = [*starts[1:], max(talk.end_seconds, starts[-1] + 1)]
    spoken = [number for number, texts in enumerate(said) if texts]
    opening = spoken[0] if len(spoken) > 1 else None
    chapters = [
        Chapter(topic.seconds, end, topic.title, " ".join(texts), opens=number == opening)
        for number, (topic, end, texts) in enumerate(zip(topics, ends, said, strict=True))
    ]
    return Chaptered(talk, chapters, sum(bool(topic.title) for topic in topics), added)


def lacking(talks: Sequence[Chaptered]) -> list[str]:
    """The texts that a title is to be written for, as it is asked for."""
    return [chapter.asked for talk in talks for chapter in talk.chapters if chapter.text and not chapter.title]


def entitled(talk: Chaptered, titles: dict[str, str], fallbacks: Collection[str] = ()) -> Chaptered:
    """`talk` with a title for each chapter: its own, that of its text among `titles`, or its number.

    Args:
        fallbacks: the texts whose titles are keyphrases.
    """
    chapters, unnamed, keyphrases = [], [], []
    for number, chapter in enumerate(talk.chapters, start=1):
        title = chapter.title or " ".join(fit_into_cell(titles.get(chapter.asked, "")).split())
        if not title:
            title = f"Chapter {number}"  # as `is_number` has it
            unnamed.append(number)
        elif not chapter.title and chapter.asked in fallbacks:
            keyphrases.append(number)
        chapters.append(replace(chapter, title=title))
    return replace(talk, chapters=chapters, unnamed=tuple(unnamed), keyphrases=tuple(keyphrases))


def is_number(title: str) -> bool:
    """Whether `title` is what `entitled` gives a chapter that has none."""
    return bool(re.fullmatch(r"Chapter \d+", title))
