"""The timeline of a talk as HTML: a bar with a part for each chapter, and the words of the chosen chapter."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from html import escape

from pipeline.transcripts.chapter import Chapter, ChapteredTranscript
from pipeline.transcripts.timestamps import short_time, youtube_time
from pipeline.transcripts.transcript import Line

_KEYPHRASE = "<p>The model wrote no title. This is a keyphrase of the words: check it.</p>"
_NO_WORDS = "<p>Nothing is said in this chapter.</p>"


def timeline_html(lesson: ChapteredTranscript) -> str:
    """Draw the timeline. The parts are radio buttons, so a style sheet shows the chosen chapter without a script."""
    lines, chapters = lesson.transcript.lines, lesson.chapters
    firsts = [bisect_left(lines, chapter.start_seconds, key=lambda line: line.seconds) for chapter in chapters]
    spans = zip(chapters, firsts, [*firsts[1:], len(lines)], strict=True)
    parts = [
        _part(
            number, chapter, lines[max(first - 1, 0) : first], lines[first:end], keyphrase=number in lesson.keyphrases
        )
        for number, (chapter, first, end) in enumerate(spans, start=1)
    ]
    legend = escape(f"Timeline of {lesson.transcript.name}: choose a chapter")
    return f'<fieldset class="timeline"><legend>{legend}</legend>{"".join(parts)}</fieldset>'


def _part(number: int, chapter: Chapter, before: Sequence[Line], lines: Sequence[Line], keyphrase: bool) -> str:
    """Draw a chapter, with the line before it so that a person can judge where it should start."""
    start, seconds = short_time(chapter.start_seconds), chapter.end_seconds - chapter.start_seconds
    name = escape(f"Chapter {number}, {start}: {chapter.title}")
    checked = " checked" if number == 1 else ""
    words = "".join(map(_line, lines)) or _NO_WORDS
    return (
        f'<label style="flex-grow:{max(round(seconds), 1)}" title="{name}">'
        f'<input type="radio" name="chapter" value="{number}" aria-label="{name}"{checked}>'
        f"<span>{number}</span></label>"
        f'<article><h3>{number}. {escape(chapter.title)}</h3><p class="span">{start} to '
        f"{youtube_time(chapter.end_seconds)}</p>{_KEYPHRASE if keyphrase else ''}"
        f'<div class="words" tabindex="0" role="region" aria-label="Words of chapter {number}">'
        f"{''.join(map(_line_before, before))}{words}</div></article>"
    )


def _line(line: Line) -> str:
    return f"<p><b>{youtube_time(line.seconds)}</b> {escape(line.text)}</p>"


def _line_before(line: Line) -> str:
    return f'<p class="before"><b>{youtube_time(line.seconds)}</b> … {escape(line.text)} (previous chapter)</p>'
