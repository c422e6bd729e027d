"""Layouts of plain text with times: where the time stands, and where the speaker's name.

| layout | example | written by |
|---|---|---|
| time first | `[00:05] hello` or `0:05` above `hello` | Whisper, YouTube, Descript, lyrics (LRC) |
| header | `Ana Lopez  0:05` above `hello` | Otter, Rev, Teams, Zoom |
| panel | `Ana Lopez`, `5 seconds`, `0:05` above `hello` | the transcript panels of Teams and Stream |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.transcripts.speakers import looks_like_a_name
from pipeline.transcripts.timestamps import TIME

_TIME_FIRST = re.compile(
    rf"\s*(?:[-*•]\s+)?[(\[]?(?P<time>{TIME})"
    rf"(?:(?:\s*(?:-->|[-–—~])\s*|,){TIME})?"
    r"(?:[)\]]|(?=[\s:|–—-]|$))(?:\s*[-–—:|](?=\s))?\s*(?P<rest>.*)"
)
_HEADER = re.compile(
    rf"\s*(?:\[(?P<bracketed>[^\[\]:]{{1,60}})\]|(?P<plain>[^\W\d_][^:\[\](]{{0,59}}?)):?\s*[-–—,|]?\s*"
    rf"[(\[]?(?P<time>{TIME})[)\]]?:?\s*"
)
_IN_WORDS = re.compile(r"\d{1,4} (?:hour|minute|second)s?(?:,? \d\d? (?:minute|second)s?)*")
_AMOUNT = re.compile(r"(\d+) (hour|minute|second)")
_SECONDS = {"hour": 3600, "minute": 60, "second": 1}
_FEWEST_HEADERS = 2
_PANEL_SHARE = 0.8  # of the times that have a name above them, for the layout of a panel


@dataclass
class TimedText:
    """A time as it is written, and the text up to the next time.

    line_number: of the time, from 1.
    speaker: may be empty.
    lines: the text beside the time, if any, and the lines below it.
    """

    line_number: int
    time: str
    speaker: str = ""
    lines: list[str] = field(default_factory=list)


def split_text(lines: Sequence[str]) -> tuple[list[str], list[TimedText]]:
    """Split a text at its times.

    Returns:
        The lines before the first time, and the text that belongs to each time.
    """
    headers = {number: match for number, line in enumerate(lines) if (match := _header(line))}
    if len(headers) < _FEWEST_HEADERS:
        headers = {}
    heading: list[str] = []
    found: list[TimedText] = []
    for number, line in enumerate(lines):
        if match := headers.get(number):
            found.append(TimedText(number + 1, match["time"], _name(match)))
        elif match := _TIME_FIRST.fullmatch(line):
            rest = match["rest"].strip()
            found.append(TimedText(number + 1, match["time"], lines=[rest] if rest else []))
        elif line.strip():
            (found[-1].lines if found else heading).append(line.strip())
    _move_panel_names(heading, found)
    for each in found:
        _remove_time_in_words(each)
    return heading, found


def _header(line: str) -> re.Match[str] | None:
    match = _HEADER.fullmatch(line)
    return match if match and (match["bracketed"] or looks_like_a_name(_name(match))) else None


def _name(match: re.Match[str]) -> str:
    return " ".join((match["bracketed"] or match["plain"]).split())


def _move_panel_names(heading: list[str], found: Sequence[TimedText]) -> None:
    """Move the name, and the time in words below it, from the end of one text to the time that follows."""
    if not found:
        return
    before = [heading, *(each.lines for each in found[:-1])]
    named = [(lines, each) for lines, each in zip(before, found, strict=True) if _end_with_a_name(lines, each)]
    if len(named) < _PANEL_SHARE * len(found):
        return
    for lines, each in named:
        each.speaker = lines[-2]
        del lines[-2:]


def _end_with_a_name(lines: Sequence[str], following: TimedText) -> bool:
    """Return whether a text ends with the next speaker's name and the next time in words."""
    return len(lines) >= 2 and _says(lines[-1], following.time) and looks_like_a_name(lines[-2])


def _remove_time_in_words(each: TimedText) -> None:
    """Remove the line in which YouTube's panel repeats the time in words."""
    if each.lines and _says(each.lines[0], each.time):
        del each.lines[0]


def _says(line: str, time: str) -> bool:
    if not _IN_WORDS.fullmatch(line):
        return False
    parts = [int(part) for part in re.split(r"[.,]", time)[0].split(":")]
    seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    return seconds == sum(int(amount) * _SECONDS[unit] for amount, unit in _AMOUNT.findall(line))
