"""Read plain text with times: each time before its words, or on a line of its own above them.

YouTube's transcript panel copies as the second form.
"""

from __future__ import annotations

import re
from itertools import pairwise

from pipeline.errors import Rejected
from pipeline.transcripts.speakers import split_speakers
from pipeline.transcripts.text_layouts import split_text
from pipeline.transcripts.timestamps import WrittenTime, parse_times, split_lines
from pipeline.transcripts.transcript import RawLine

_SPEAKER_PER_LINE = 0.8
"""Share of the lines below a time that must name their speaker for each to be a line of its own."""


_CLOCK = re.compile(r"(?<![\d:])\d{1,2}:\d{2}(?::\d{2})?(?![\d:])")


class NoTimes(Rejected):
    """The text has no times that can be read."""


def read_timed_text(text: str, file_name: str) -> list[RawLine]:
    """Read a transcript in plain text, in any of the layouts of `text_layouts`.

    Text before the first time counts as spoken at 0:00, unless the first time is 0:00: then it is a heading.

    Args:
        text: the content of the file.
        file_name: the file's name, for messages.

    Raises:
        NoTimes: the text has no times.
        Rejected: a time cannot be read, or the times are not in order.
    """
    heading, passages = split_text(split_lines(text))
    if not passages:
        found = _CLOCK.search(text)
        problem = f"has times, such as {found[0]}, but not before the words" if found else "has no times"
        raise NoTimes(f"{file_name} {problem}. Begin each line with its time, such as 0:01:05 so now we turn to.")
    times = parse_times([WrittenTime(each.line_number, each.time) for each in passages], file_name)
    for (before, earlier), (after, later) in pairwise(zip(passages, times, strict=True)):
        if later < earlier:
            raise Rejected(
                f"{file_name}, line {after.line_number:,}: its time is before the time in line "
                f"{before.line_number:,}. Put the lines in order of time. If it is a spoken number, write it without "
                "the colon."
            )
    spoken = [
        RawLine(seconds, None, line, each.speaker)
        for each, seconds in zip(passages, times, strict=True)
        for line in (each.lines if _share_of_names(each.lines) >= _SPEAKER_PER_LINE else [" ".join(each.lines)])
    ]
    return spoken if times[0] == 0 else [RawLine(0.0, None, " ".join(heading)), *spoken]


def _share_of_names(lines: list[str]) -> float:
    """Return the share of lines that name their speaker: all but a few in a transcript of Google Meet."""
    return sum(bool(name) for name, _ in split_speakers(lines)) / len(lines) if lines else 0.0
