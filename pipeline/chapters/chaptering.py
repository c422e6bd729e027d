"""Chapters of whole talks: known topics are kept, unknown ones found, and titles written where there are none."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pipeline.chapters.segmentation import ChaptersSettings, chapter_starts
from pipeline.data.openings import marked
from pipeline.monitoring.batch_log import log_batch
from pipeline.titles.fallbacks import KEYPHRASE, NUMBER, mark
from pipeline.titles.titling import Titled, present_version, title_texts
from pipeline.titles.workbook import as_cell
from pipeline.transcripts.transcript import Talk, Topic


@dataclass(frozen=True)
class Chapter:
    """A part of a talk.

    text: what is said in it; may be empty under a known topic.
    opens: whether what is said begins with it, and goes on.
    """

    start_seconds: float
    end_seconds: float
    title: str
    text: str
    opens: bool = False

    @property
    def asked(self) -> str:
        """Its text as a title is asked for it."""
        return marked(self.text) if self.opens else self.text


@dataclass(frozen=True)
class Chaptered:
    """A talk and its chapters, which hold all of its lines, in the order of time.

    kept: how many titles were known.
    added: whether the first chapter was put before the first known topic.
    unnamed: the numbers of the chapters that no title was written for.
    keyphrases: the numbers of those whose titles are keyphrases, since the model wrote nothing of use.
    """

    talk: Talk
    chapters: list[Chapter]
    kept: int = 0
    added: bool = False
    unnamed: tuple[int, ...] = ()
    keyphrases: tuple[int, ...] = ()

    @property
    def marks(self) -> list[str]:
        """What the column `FALLBACK` says of each chapter's title; nothing of most."""
        kinds = dict.fromkeys(self.keyphrases, KEYPHRASE) | dict.fromkeys(self.unnamed, NUMBER)
        return [
            mark(kinds[number], chapter.title) if number in kinds else ""
            for number, chapter in enumerate(self.chapters, start=1)
        ]

    def remarks(self) -> list[str]:
        """What a person should look at."""
        said = []
        if self.added:
            said.append(f"{self.talk.name}: words are said before its first topic, so a chapter at 0:00 was added.")
        if self.keyphrases:
            said.append(
                f"{self.talk.name}: {len(self.keyphrases):,} of the titles are keyphrases, since the model wrote "
                f"nothing of use (chapter {_listed(self.keyphrases)}). Look them over."
            )
        if self.unnamed:
            said.append(
                f"{self.talk.name}: no title was written for chapter {_listed(self.unnamed)}. Write it by hand."
            )
        return said


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


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
        Misused: a talk has no room for `count` chapters.
        Refused: nothing is registered, or the version or the encoder cannot be loaded.
    """
    version = None if all(_has_titles(talk) for talk in talks) else present_version()
    found = [cut(talk, settings, count) for talk in talks]
    titled = None
    if version:
        titled = title_texts(lacking(found), version)
        log_batch([*titled.titles], [titled.written(text) for text in titled.titles], version)
    titles, fallbacks = (titled.titles, titled.fallbacks) if titled else ({}, ())
    return [entitled(talk, titles, fallbacks) for talk in found], titled


def _has_titles(talk: Talk) -> bool:
    if not talk.lines:
        return True  # there is nothing that one could be written for
    return bool(talk.topics) and all(topic.title for topic in talk.topics) and talk.topics[0].seconds <= talk.begins


def cut(talk: Talk, settings: ChaptersSettings, count: int | None = None) -> Chaptered:
    """`talk` in chapters that begin at its topics, or where its topics are found if it has none; without new titles.

    Raises:
        Misused: `count` is more than the talk has room for.
        Refused: the encoder cannot be had.
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
        title = chapter.title or " ".join(as_cell(titles.get(chapter.asked, "")).split())
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
