"""Give the untitled chapters of a talk titles that are chosen together."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pipeline.chapters.divide_transcript import divide_at
from pipeline.chapters.segmentation import FEWEST_CHAPTERS
from pipeline.models.title_cleanup import is_usable_title
from pipeline.registry.fallback_title import Shown
from pipeline.registry.talk_titles import choose_talk_titles, find_same_topic
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.lesson_names import one_line
from pipeline.transcripts.transcript import Topic


def untitled_texts(lessons: Sequence[ChapteredTranscript]) -> list[str]:
    """List the model inputs of the chapters that have words but no title."""
    chapters = [chapter for lesson in lessons for chapter in lesson.chapters]
    return [chapter.model_input for chapter in chapters if chapter.text and not chapter.title]


def add_titles(lesson: ChapteredTranscript, shown: Mapping[str, Shown], *, merge: bool = False) -> ChapteredTranscript:
    """Give each untitled chapter a title that no other chapter of its talk has, else `Chapter` and its number.

    A speaker's name is no title.

    Args:
        shown: by model input, the title of the chapter by itself, with its candidates.
        merge: whether to merge neighbours that the model cannot tell apart, down to three chapters. Known topics are
            never merged.
    """
    names = {frozenset(line.speaker.casefold().split()) for line in lesson.transcript.lines if line.speaker}
    own = {
        number: _without_names(shown[chapter.model_input], names)
        for number, chapter in enumerate(lesson.chapters)
        if not chapter.title and chapter.model_input in shown
    }
    if merge and not lesson.transcript.topics and len(own) == len(lesson.chapters):
        lesson, merged = _merge_same_topics(lesson, [*own.values()])
        own = dict(enumerate(merged))
    return _with_titles(lesson, _choose_titles(lesson, own, names))


def _merge_same_topics(lesson: ChapteredTranscript, own: list[Shown]) -> tuple[ChapteredTranscript, list[Shown]]:
    """Merge neighbours that the model cannot tell apart. A merged chapter has the candidates of both."""
    while len(own) > FEWEST_CHAPTERS and (
        second := find_same_topic(own, [chapter.model_input for chapter in lesson.chapters])
    ):
        starts = [chapter.start_seconds for chapter in lesson.chapters]
        lesson = divide_at(lesson.transcript, [Topic(start, "") for start in [*starts[:second], *starts[second + 1 :]]])
        first, other = own[second - 1 : second + 1]
        both = Shown(first.title, False, list(dict.fromkeys([*first.candidates, other.title, *other.candidates])))
        own = [*own[: second - 1], both, *own[second + 1 :]]
    return lesson, own


def _choose_titles(
    lesson: ChapteredTranscript, own: Mapping[int, Shown], names: Collection[frozenset[str]]
) -> dict[int, Shown]:
    """Choose the missing titles of a talk together, by the index of the chapter."""
    known = [chapter.title for chapter in lesson.chapters if chapter.title]
    chosen = choose_talk_titles([*own.values()], [lesson.chapters[number].model_input for number in own], known)
    return {
        number: Shown("", True) if _is_name(title.title, names) else title
        for number, title in zip(own, chosen, strict=True)
    }


def _with_titles(lesson: ChapteredTranscript, titles: Mapping[int, Shown]) -> ChapteredTranscript:
    chapters, unnamed, keyphrases = [], [], []
    for number, chapter in enumerate(lesson.chapters, start=1):
        chosen = titles.get(number - 1, Shown(chapter.title, False))
        title = chapter.title or one_line(chosen.title)
        if not title:
            title = f"Chapter {number}"  # is_numbered_title recognises it
            unnamed.append(number)
        elif chosen.fallback:
            keyphrases.append(number)
        chapters.append(replace(chapter, title=title))
    return replace(lesson, chapters=chapters, unnamed=tuple(unnamed), keyphrases=tuple(keyphrases))


def _without_names(shown: Shown, names: Collection[frozenset[str]]) -> Shown:
    """Remove the titles that consist of words of a speaker's name."""
    titles = [shown.title, *(() if shown.fallback else filter(is_usable_title, shown.candidates))]
    titles = [title for title in titles if title and not _is_name(title, names)]
    return Shown(next(iter(titles), ""), shown.fallback, titles)


def _is_name(title: str, names: Collection[frozenset[str]]) -> bool:
    words = {*title.casefold().split()}
    return any(words <= name for name in names)


def is_numbered_title(title: str) -> bool:
    """Return whether `title` is one that `add_titles` gives a chapter without a title."""
    return bool(re.fullmatch(r"Chapter \d+", title))
