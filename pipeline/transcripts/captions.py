"""Captions as WebVTT, SubRip and SBV write them: cues, each a line of two times and the words below it.

One reader for the three, which differ in how a time is written and in what stands between the cues. It knows the line
of every cue, so that one that cannot be read is named, and none is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import Stamp, rows_of, seconds_of, unescaped
from pipeline.transcripts.transcript import Spoken

_TIME = r"(?:\d+:)?\d+:\d+(?:[.,]\d+)?"
_SETTING = r"(?:vertical|line|position|size|align|region):\S+|[XY][12]:\s*-?\d+"  # WebVTT's, and SubRip's coordinates
_TIMES = re.compile(rf"\s*({_TIME})(?:\s*-->\s*|,)({_TIME})(?:\s+(?:{_SETTING}))*\s*")
_WORDS_BESIDE = re.compile(rf"\s*{_TIME}(?:\s*-->\s*|,){_TIME}\s+\S.*")
_BEGINS_A_TIME = re.compile(r"\d:\d")
_ARROW_TO_A_TIME = re.compile(r"-->\s*\d+:\d")
_NOT_SPOKEN = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s.*)?")  # begins a block of WebVTT without a cue
_TAG = re.compile(r"</?(?:[cibuv]|ruby|rt|lang|font)\b[^<>]*>|<\d[\d:.]*>|\{\\an?\d+\}|\[br\]", re.IGNORECASE)
_ROLLING = 0.7  # least share of cues that begin with what the cue before them shows


@dataclass(frozen=True)
class _Cue:
    at: int  # the line of its times
    start: str
    end: str
    rows: list[str]


def holds_cues(text: str) -> bool:
    """Whether `text` says that it is WebVTT, or has a line of two times and no words."""
    return text.startswith("WEBVTT") or any(_TIMES.fullmatch(row) for row in rows_of(text))


def read_cues(text: str, name: str, *, rolls: bool = True) -> list[Spoken]:
    """What each cue says, without markup; of captions that roll, what is new in it.

    Args:
        name: of the file, for messages.
        rolls: whether the captions may roll, which chapters do not.

    Raises:
        Rejected: a line that should be two times is not, or has words beside them, or words have no time.
    """
    cues = list(_cues(rows_of(text), name))
    times = seconds_of([Stamp(cue.at, time) for cue in cues for time in (cue.start, cue.end)], name)
    shown = [[said for row in cue.rows if (said := _said(row))] for cue in cues]
    new = _unrolled(shown) if rolls else shown
    return [Spoken(start, end, " ".join(rows)) for start, end, rows in zip(times[::2], times[1::2], new, strict=True)]


def _cues(rows: Sequence[str], name: str) -> Iterator[_Cue]:
    cue: _Cue | None = None
    webvtt = rows[0].startswith("WEBVTT")
    silent = False
    for n, row in enumerate(rows):
        if times := _TIMES.fullmatch(row):
            silent = False
            cue = _Cue(n + 1, *times.groups(), [])
            yield cue
        elif not row.strip():
            silent = silent and bool(row)  # a block of WebVTT ends at an empty line, not at one of spaces
        elif not silent and _WORDS_BESIDE.fullmatch(row):
            raise Rejected(
                f"{name}, line {n + 1:,}: {_short(row)} has words beside its times, and captions have them below. "
                "Move them there."
            )
        elif _is_meant_as_times(row):
            raise Rejected(
                f"{name}, line {n + 1:,}: {_short(row)} is not two times. Write 00:01:05.000 --> 00:01:09.000."
            )
        elif webvtt and _NOT_SPOKEN.fullmatch(row) and not (n and rows[n - 1]):
            silent = True
        elif not (silent or _names_a_cue(rows, n)):
            if cue is None:
                raise Rejected(f"{name}, line {n + 1:,}: {_short(row)} has no time. Put one above it, or take it away.")
            cue.rows.append(row)


def _is_meant_as_times(row: str) -> bool:
    """True if `row` has an arrow with something like a time to its left or right."""
    if "-->" not in row:
        return False
    words = row.split()
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if (begins := _BEGINS_A_TIME.search(word)) and (word.find("-->", begins.end()) > 0 or following[:3] == "-->"):
            return True
    return _ARROW_TO_A_TIME.search(row) is not None


def _names_a_cue(rows: Sequence[str], n: int) -> bool:
    """Whether row `n` is a cue's number or name, which stands above its times and below an empty line."""
    below = rows[n + 1] if n + 1 < len(rows) else ""
    return bool(_TIMES.fullmatch(below)) and (rows[n].strip().isdigit() or not (n and rows[n - 1].strip()))


def _said(row: str) -> str:
    return " ".join(unescaped(_TAG.sub(" " if "[br]" in row else "", row)).split())


def _unrolled(cues: list[list[str]]) -> list[list[str]]:
    """Without what a cue repeats of the one before it, where most do: YouTube's own captions roll up line by line."""
    repeated = [_overlap(before, after) for before, after in pairwise([[], *cues])]
    if sum(map(bool, repeated)) <= _ROLLING * len(cues):
        return cues
    return [rows[count:] for rows, count in zip(cues, repeated, strict=True)]


def _overlap(before: list[str], after: list[str]) -> int:
    """Count the rows that `after` begins with and `before` ends with.

    A cue may have very many rows, so this is the prefix function of Knuth, Morris and Pratt.
    """
    rows = [*after, None, *before]
    borders = [0] * len(rows)  # of the rows up to each, how many both begin and end them
    for n in range(1, len(rows)):
        length = borders[n - 1]
        while length and rows[n] != rows[length]:
            length = borders[length - 1]
        borders[n] = length + (rows[n] == rows[length])
    return borders[-1] if before else 0


def _short(row: str) -> str:
    return repr(row.strip()[:60])
