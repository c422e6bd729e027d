"""Score whole lessons, chapters and titles together, as a version serves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.chapters.divide_transcript import divide_as_served, divide_at
from pipeline.chapters.segmenter import Segmenter
from pipeline.evaluation.soda import TitledSpan, soda_c
from pipeline.registry.chapter_titles import add_titles, untitled_texts
from pipeline.registry.fallback_title import Shown
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.transcript import Transcript


class CutLessons:
    """Lessons that a segmenter has cut without knowing their topics.

    Args:
        talks: the lessons, with their topics.
        segmenter: of a version; None for a version from before segmenters.
    """

    def __init__(self, talks: Sequence[Transcript], segmenter: Segmenter | None) -> None:
        self._true = [_spans(divide_at(talk, talk.topics)) for talk in talks]
        self._cut = [divide_as_served(talk, segmenter) for talk in talks]

    @property
    def texts(self) -> list[str]:
        """The distinct texts that need titles."""
        return list(dict.fromkeys(untitled_texts(self._cut)))

    def scores(self, shown: Mapping[str, Shown]) -> list[float]:
        """Return the joint score of each lesson.

        Args:
            shown: by text, its title with its candidates. The titles of a talk are chosen as `lectern chapters` does.
        """
        return [
            soda_c(_spans(add_titles(lesson, shown, merge=True)), true)
            for lesson, true in zip(self._cut, self._true, strict=True)
        ]


def _spans(lesson: ChapteredTranscript) -> list[TitledSpan]:
    """Return the titled chapters: words before a lesson's first topic belong to none."""
    return [TitledSpan(each.start_seconds, each.end_seconds, each.title) for each in lesson.chapters if each.title]
