"""Read captions in WebVTT, SubRip and SBV: cues, each a line with two times and the words below it.

One reader handles all three formats. They differ in how they write times and in what may stand between cues. The reader
keeps the line number of each cue, so that a message can name the line that cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import WrittenTime, parse_times, split_lines, unescape_html
from pipeline.transcripts.transcript import RawLine

_TIME = r"-?(?:\d+ *: *)?\d+ *: *\d+(?: *[.,] *\d+)?"
_ARROW = r"\s*--?>\s*"
_SETTING = r"(?:vertical|line|position|size|align|region):\S+|[XY][12]:\s*-?\d+"  # WebVTT's, and SubRip's coordinates
_ARROW_TIMES = rf"\s*({_TIME}){_ARROW}({_TIME})"
_COMMA_TIMES = rf"\s*({_TIME})(?:{_ARROW}|,)({_TIME})"  # SBV's
_REST = rf"(?:\s+(?:{_SETTING}))*\s*"
_TIMES = re.compile(_COMMA_TIMES + _REST)
_TIMES_AND_WORDS = re.compile(_COMMA_TIMES + r"\s+\S.*")
_WEBVTT_TIMES = re.compile(_ARROW_TIMES + _REST)
_WEBVTT_TIMES_AND_WORDS = re.compile(_ARROW_TIMES + r"\s+\S.*")
_BEGINS_A_TIME = re.compile(r"\d:\d")
_BEGINS_LIKE_TIMES = re.compile(r"\s*(?:-->|[-(\[]?\d)")
_ARROW_TO_A_TIME = re.compile(r"-->\s*\d+:\d")
_WEBVTT_BLOCK = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s.*)?")  # begins a block without spoken words
_TAG = re.compile(r"</?(?:[cibuv]|ruby|rt|lang|font)\b[^<>]*>|<\d[\d:.]*>|\{\\an?\d+\}|\[br\]", re.IGNORECASE)
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>", re.IGNORECASE)  # WebVTT's name of a speaker
_GROWING_SHARE = 0.5  # captions grow if more than this share of cues extend the words of the cue before
_ROLLING_SHARE = 0.7  # captions roll if more than this share of cues repeat rows of the cue before


@dataclass(frozen=True)
class _Cue:
    line_number: int  # of its times
    start: str
    end: str
    rows: list[str]


def has_cues(text: str) -> bool:
    """Return whether `text` begins as WebVTT does, or has a line with two times and no words."""
    return text.startswith("WEBVTT") or any(_TIMES.fullmatch(row) for row in split_lines(text))


def read_cues(text: str, file_name: str, *, may_roll: bool = True) -> list[RawLine]:
    """Read the words of each cue, without markup.

    Captions roll if most cues repeat what the cue before shows. Of such captions, only the new words are returned.

    Args:
        file_name: the file's name, for messages.
        may_roll: whether to look for rolling captions. Chapters never roll.

    Raises:
        Rejected: a line with times cannot be read or also has words, or words have no time.
    """
    cues = list(_cues(split_lines(text), file_name))
    times = parse_times(
        [WrittenTime(cue.line_number, time) for cue in cues for time in (cue.start, cue.end)], file_name
    )
    shown = [[words for row in cue.rows if (words := _words(row))] for cue in cues]
    spoken = _without_repeats(shown) if may_roll else shown
    lines = [
        RawLine(start, end, " ".join(rows), _speaker(cue))
        for cue, start, end, rows in zip(cues, times[::2], times[1::2], spoken, strict=True)
    ]
    return _without_growth(lines) if may_roll else lines


def _cues(rows: Sequence[str], file_name: str) -> Iterator[_Cue]:
    cue: _Cue | None = None
    webvtt = rows[0].startswith("WEBVTT")
    two_times = _WEBVTT_TIMES if webvtt else _TIMES
    times_and_words = _WEBVTT_TIMES_AND_WORDS if webvtt else _TIMES_AND_WORDS
    in_block = False
    for n, row in enumerate(rows):
        if times := two_times.fullmatch(row):
            in_block = False
            cue = _Cue(n + 1, _tidy_time(times[1]), _tidy_time(times[2]), [])
            yield cue
        elif not row.strip():
            in_block = in_block and bool(row)  # an empty line ends a WebVTT block; a line of spaces does not
        elif not in_block and times_and_words.fullmatch(row):
            raise Rejected(
                f"{file_name}, line {n + 1:,}: {_short(row)} has words after its times. Move them to the next line."
            )
        elif _is_meant_as_times(row):
            raise Rejected(
                f"{file_name}, line {n + 1:,}: {_short(row)} is not two times. Write 00:01:05.000 --> 00:01:09.000."
            )
        elif webvtt and _WEBVTT_BLOCK.fullmatch(row) and not (n and rows[n - 1]):
            in_block = True
        elif not (in_block or _names_a_cue(rows, n)):
            if cue is None:
                raise Rejected(
                    f"{file_name}, line {n + 1:,}: {_short(row)} has no time. Write a line with times above it, or "
                    "delete it."
                )
            cue.rows.append(row)


def _tidy_time(written: str) -> str:
    """Remove spaces within a time, and replace a time before the start of the recording by 0:00."""
    return "0:00" if written.startswith("-") else written.replace(" ", "")


def _is_meant_as_times(row: str) -> bool:
    """Return whether `row` begins like a time and has an arrow with something like a time to its left or right."""
    if "-->" not in row or not _BEGINS_LIKE_TIMES.match(row):
        return False
    words = row.split()
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if (begins := _BEGINS_A_TIME.search(word)) and (word.find("-->", begins.end()) > 0 or following[:3] == "-->"):
            return True
    return _ARROW_TO_A_TIME.search(row) is not None


def _names_a_cue(rows: Sequence[str], n: int) -> bool:
    """Return whether row `n` is a cue's number or name.

    Both are directly above the times. A name also has an empty line above it; a number need not.
    """
    below = rows[n + 1] if n + 1 < len(rows) else ""
    return bool(_TIMES.fullmatch(below)) and (rows[n].strip().isdigit() or not (n and rows[n - 1].strip()))


def _speaker(cue: _Cue) -> str:
    """Return the name in a cue's first voice tag; empty if it has none."""
    voice = next(filter(None, map(_VOICE.search, cue.rows)), None)
    return " ".join(unescape_html(voice[1]).split()) if voice else ""


def _words(row: str) -> str:
    return " ".join(unescape_html(_TAG.sub(" " if "[br]" in row else "", row)).split())


def _without_repeats(cues: list[list[str]]) -> list[list[str]]:
    """Remove rows that repeat the cue before, if most cues do: YouTube's automatic captions roll up line by line."""
    repeated = [_overlap(before, after) for before, after in pairwise([[], *cues])]
    if sum(map(bool, repeated)) <= _ROLLING_SHARE * len(cues):
        return cues
    return [rows[count:] for rows, count in zip(cues, repeated, strict=True)]


def _without_growth(lines: list[RawLine]) -> list[RawLine]:
    """Keep the last form of each line, if many lines repeat the one before and add words, as live captions do."""
    grows = [_extends(after, before) for before, after in pairwise(lines)]
    if sum(grows) <= _GROWING_SHARE * len(lines):
        return lines
    kept: list[RawLine] = []
    for line, extends in zip(lines, [False, *grows], strict=True):
        if extends:
            kept[-1] = line._replace(seconds=kept[-1].seconds)
        else:
            kept.append(line)
    return kept


def _extends(line: RawLine, before: RawLine) -> bool:
    return bool(before.text) and line.text != before.text and line.text.startswith(f"{before.text} ")


def _overlap(before: list[str], after: list[str]) -> int:
    """Count the rows that end `before` and begin `after`.

    A cue may have many thousands of rows. The prefix function of Knuth, Morris and Pratt needs linear time.
    """
    rows = [*after, None, *before]
    borders = [0] * len(rows)  # for each prefix of rows: length of its longest border, which begins and ends it
    for n in range(1, len(rows)):
        length = borders[n - 1]
        while length and rows[n] != rows[length]:
            length = borders[length - 1]
        borders[n] = length + (rows[n] == rows[length])
    return borders[-1] if before else 0


def _short(row: str) -> str:
    return repr(row.strip()[:60])
