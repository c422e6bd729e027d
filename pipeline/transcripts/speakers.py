"""Speakers' names before what they say, as in `Ana Lopez: hello`.

A name and a colon may also be part of a sentence (`One thing: never rush`). So a text before a colon counts as a name
only if it looks like one and the transcript as a whole is written that way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_NAME = r"[^\W\d_][\w.'’&/-]*(?: (?:\(?[\w.'’&/-]+\)?)){0,4}"
_BEFORE_COLON = re.compile(
    rf"\s*(?:>>+\s*)?(?:\[(?P<bracketed>[^\[\]:]{{1,60}})\]|(?P<plain>{_NAME}))\s?[:：](?:\s+|$)"
)
_MARK = re.compile(r"\s*>>+\s*")  # a change of speaker in captions for television
_SHARE = 0.3  # of the lines that must begin with a name
_REPEATS = 2  # lines per name, on average


def split_speakers(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Split each line into the speaker's name, which may be empty, and the words.

    A line that has only a name gives its speaker to the next line.

    Args:
        lines: the lines of one transcript, in order.
    """
    names = _names(lines)
    found, pending = [], ""
    for line in lines:
        match = _BEFORE_COLON.match(line)
        name = _name(match) if match else ""
        if match and name in names:
            words = line[match.end() :].strip()
            if not words:
                pending = name
            found.append((name, words))
        else:
            found.append((pending, _MARK.sub("", line, count=1) if _MARK.match(line) else line))
        if found[-1][1]:
            pending = ""
    return found


def _names(lines: Sequence[str]) -> set[str]:
    """Return the texts before colons that are names, judged over the whole transcript."""
    spoken = [line for line in lines if line.strip()]
    counts = Counter(_name(match) for line in spoken if (match := _BEFORE_COLON.match(line)))
    names = {name: count for name, count in counts.items() if looks_like_a_name(name)}
    lines_with_a_name = sum(names.values())
    if lines_with_a_name < _SHARE * len(spoken) or lines_with_a_name < _REPEATS * len(names):
        return set()
    return set(names)


def _name(match: re.Match[str]) -> str:
    return " ".join((match["bracketed"] or match["plain"]).split())


def looks_like_a_name(text: str) -> bool:
    """Return whether every word begins with a capital, a digit or a letter without case, or is a short particle."""
    first, *others = text.split()
    return not first[0].islower() and all(not word[0].islower() or len(word) <= 3 for word in others)
