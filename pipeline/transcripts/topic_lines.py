"""Topics as people write them: a line for each, as in the description of a video.

The time may stand before or after the title, in brackets, as a range, after a number, a bullet, an emoji or a word such
as "Chapter 1:".
"""

from __future__ import annotations

import re

from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import TIME, WrittenTime, parse_times, split_lines
from pipeline.transcripts.transcript import Topic

_LINE = re.compile(
    rf"(?P<before>.*?)[\[(]*(?<!\d)(?P<time>{TIME})(?:\s*(?:-->|[-–—~]|to)\s*{TIME})?[\])]*(?P<after>.*)"
)
_SEPARATORS = " \t-–—:|•·*_#>"
_SEPARATOR = re.compile(r"^\s*[-–—:|](?=\s)")  # between a time and its title
_NUMBERING = re.compile(r"(?:\d+[.)]|[^\w\s]+)\s*")
_CALLED = re.compile(r"(?:chapter|part|section|topic|kapitel|chapitre|capítulo|capitolo)?\s*\d*\s*", re.IGNORECASE)
_LINK = re.compile(r"\s*<https?://\S*>\s*$")


def read_topic_lines(text: str, file_name: str) -> list[Topic]:
    """Read a topic from each line that has a time; a time on a line of its own takes its title from the next line.

    Lines without a time are text around the list, and are left out.

    Args:
        text: the content of the file.
        file_name: the file's name, for messages.

    Raises:
        Rejected: a time cannot be read, or a line has words on both sides of its time.
    """
    times: list[WrittenTime] = []
    titles: list[str] = []
    for number, line in enumerate(split_lines(text), start=1):
        if match := _LINE.fullmatch(line):
            times.append(WrittenTime(number, match["time"]))
            titles.append(_title(match, number, file_name))
        elif line.strip() and times and not titles[-1] and times[-1].line_number == number - 1:
            titles[-1] = " ".join(line.split())
    return [Topic(seconds, title) for seconds, title in zip(parse_times(times, file_name), titles, strict=True)]


def _title(match: re.Match[str], number: int, file_name: str) -> str:
    before = _clean(match["before"])
    after = " ".join(_LINK.sub("", _SEPARATOR.sub("", match["after"], count=1)).split())
    if not after:
        return before
    if before and not _CALLED.fullmatch(before):
        raise Rejected(
            f"{file_name}, line {number:,}: {match[0].strip()[:60]!r} has words before and after its time. Write the "
            "time first, then the title."
        )
    return after


def _clean(text: str) -> str:
    """Remove bullets, numbers, separators and a link around a text before a time."""
    text = _LINK.sub("", text).strip(_SEPARATORS)
    if number := _NUMBERING.match(text):
        text = text[number.end() :].strip(_SEPARATORS)
    return " ".join(text.split())
