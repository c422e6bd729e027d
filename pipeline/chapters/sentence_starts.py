"""Move the boundaries of chapters to lines that begin a sentence, so that no chapter begins in the middle of one.

Lines are never split. Where no line nearby begins a sentence, as in captions without punctuation, a boundary moves to
the line after the longest pause.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from pipeline.data.word_count import count_words
from pipeline.transcripts.transcript import Line, Transcript

_ENDS_SENTENCE = re.compile(r"[.?!…。？！]['\"”’»)\]]*$")


def sentence_starts(transcript: Transcript, boundaries: Sequence[int], words: int, shortest: float) -> list[float]:
    """Move each boundary to the nearest line that begins a sentence, or else to the line after the longest pause.

    Args:
        boundaries: indices of the first lines of chapters, increasing, without the first chapter's.
        words: the most words between a boundary and its new place.
        shortest: minimum length of a chapter in seconds, which the given boundaries keep.

    Returns:
        The starts of these chapters in whole seconds, increasing.
    """
    lines, pauses = transcript.lines, _pauses(transcript.lines)
    latest = [*(_start(lines, boundary) for boundary in boundaries[1:]), transcript.end_seconds]
    starts = [0.0]
    for boundary, next_start in zip(boundaries, latest, strict=False):
        nearby = [
            line
            for line in _lines_within(lines, boundary, words)
            if starts[-1] + shortest <= _start(lines, line) <= next_start - shortest
        ]
        of_sentences = [line for line in nearby if _begins_sentence(lines, line)]
        if of_sentences:
            best = min(of_sentences, key=lambda line: abs(line - boundary))
        else:
            best = max(nearby, key=lambda line: (pauses[line], -abs(line - boundary)), default=boundary)
        starts.append(_start(lines, best))
    return starts[1:]


def _start(lines: Sequence[Line], line: int) -> float:
    """Return the start of a line in whole seconds, as files for YouTube have it."""
    return float(int(lines[line].seconds))


def _lines_within(lines: Sequence[Line], boundary: int, words: int) -> list[int]:
    """Return the lines that are at most so many words away from a boundary and can begin a chapter.

    A chapter cannot begin in the same second as the line before it: files with whole seconds would lose the difference.
    """
    found = [boundary]
    for step in (-1, 1):
        line, between = boundary, 0
        while 0 < line + step < len(lines):
            between += count_words(lines[min(line, line + step)].text)
            if between > words:
                break
            line += step
            found.append(line)
    return [line for line in sorted(found) if _start(lines, line) > _start(lines, line - 1)]


def _begins_sentence(lines: Sequence[Line], line: int) -> bool:
    """Return whether a line follows the end of a sentence, or names another speaker than the line before."""
    before, speaker = lines[line - 1], lines[line].speaker
    return speaker not in ("", before.speaker) or _ENDS_SENTENCE.search(before.text) is not None


def _pauses(lines: Sequence[Line]) -> list[float]:
    """Estimate the pause before each line: the time since the line before, without the time that its words take."""
    counts = [max(1, count_words(line.text)) for line in lines]
    gaps = [after.seconds - before.seconds for before, after in pairwise(lines)]
    seconds_per_word = median([gap / count for gap, count in zip(gaps, counts, strict=False)] or [0.0])
    return [0.0, *(gap - seconds_per_word * count for gap, count in zip(gaps, counts, strict=False))]
