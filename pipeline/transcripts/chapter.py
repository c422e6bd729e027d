"""Chapters of a talk, before and after they have titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.fallback_titles import KEYPHRASE, NUMBER, fallback_note
from pipeline.data.lesson_openings import mark_opening
from pipeline.transcripts.transcript import Talk


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
        return mark_opening(self.text) if self.opens else self.text


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
            fallback_note(kinds[number], chapter.title) if number in kinds else ""
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
