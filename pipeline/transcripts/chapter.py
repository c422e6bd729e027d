"""The chapters of a transcript, before and after they have titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.fallback_titles import KEYPHRASE, NUMBER, fallback_note
from pipeline.data.lesson_openings import mark_opening
from pipeline.transcripts.transcript import Transcript


@dataclass(frozen=True)
class Chapter:
    """A part of a transcript.

    text: the words of its lines; may be empty below a known topic.
    opens: whether the lesson's first words are in it and other chapters with words follow.
    """

    start_seconds: float
    end_seconds: float
    title: str
    text: str
    opens: bool = False

    @property
    def model_input(self) -> str:
        """The text that a model gets to write the title. An opening is marked."""
        return mark_opening(self.text) if self.opens else self.text


@dataclass(frozen=True)
class ChapteredTranscript:
    """A transcript and its chapters, in order of time. Together the chapters hold all lines.

    kept: number of titles that were known.
    added: whether a chapter was added before the first known topic.
    unnamed: numbers of the chapters that have no title yet, only their number.
    keyphrases: numbers of the chapters whose title is a keyphrase, because the model wrote none of their own.
    """

    transcript: Transcript
    chapters: list[Chapter]
    kept: int = 0
    added: bool = False
    unnamed: tuple[int, ...] = ()
    keyphrases: tuple[int, ...] = ()

    @property
    def fallback_marks(self) -> list[str]:
        """The cell of the column `FALLBACK` for each chapter; empty for titles of the model or of a person."""
        kinds = dict.fromkeys(self.keyphrases, KEYPHRASE) | dict.fromkeys(self.unnamed, NUMBER)
        return [
            fallback_note(kinds[number], chapter.title) if number in kinds else ""
            for number, chapter in enumerate(self.chapters, start=1)
        ]

    def remarks(self) -> list[str]:
        """List what a person should check."""
        remarks = list(self.transcript.notes)
        if self.added:
            remarks.append(
                f"{self.transcript.name}: the transcript starts before the first topic, so a chapter at 0:00 was added."
            )
        if self.keyphrases:
            remarks.append(
                f"{self.transcript.name}: {len(self.keyphrases):,} of the titles are keyphrases, because the model "
                f"wrote no usable title of their own (chapter {_comma_separated(self.keyphrases)}). Check them."
            )
        if self.unnamed:
            remarks.append(
                f"{self.transcript.name}: no title was written for chapter {_comma_separated(self.unnamed)}. "
                "Write one by hand."
            )
        return remarks


def _comma_separated(numbers: Sequence[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)
