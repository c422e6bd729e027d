"""Plain text with times: before what is said, or in a line of their own above it, as in YouTube's transcript panel."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import Stamp, rows_of, seconds_of
from pipeline.transcripts.transcript import Spoken

_TIME = r"\d+:\d+(?::\d+)?(?:[.,]\d+)?"
_STAMPED = re.compile(
    rf"\s*(?:[-*•]\s+)?[(\[]?(?P<time>{_TIME})(?:(?:\s*(?:-->|[-–—])\s*|,){_TIME})?[)\]]?(?:\s*[-–—:|](?=\s))?(?:\s+(?P<rest>.*)|\s*)"
)
_ALOUD = re.compile(r"\d{1,4} (?:hour|minute|second)s?(?:, \d\d? (?:minute|second)s?)*")
_PART = re.compile(r"(\d+) (hour|minute|second)")
_SECONDS = {"hour": 3600, "minute": 60, "second": 1}


class Stamped(NamedTuple):
    """What stands beside a time, and the lines below it up to the next time."""

    at: int
    seconds: float
    beside: str
    below: list[str]


def stamped(text: str, name: str) -> list[Stamped]:
    """Each time that begins a line of `text`, with what follows it. Text before the first one belongs to no time.

    Args:
        name: of the file, for messages.

    Raises:
        Rejected: a time cannot be read.
    """
    found: list[tuple[Stamp, str, list[str]]] = []
    for at, row in enumerate(rows_of(text), start=1):
        if match := _STAMPED.fullmatch(row):
            found.append((Stamp(at, match["time"]), (match["rest"] or "").strip(), []))
        elif found and row.strip():
            found[-1][2].append(row.strip())
    seconds = seconds_of([stamp for stamp, _, _ in found], name)
    return [Stamped(stamp.at, time, *rest) for (stamp, *rest), time in zip(found, seconds, strict=True)]


def read_timed_text(text: str, name: str) -> list[Spoken]:
    """What is said from each time on; what stands before the first one is said at 0:00.

    Args:
        name: of the file, for messages.

    Raises:
        Rejected: there is no time, one cannot be read, or one is before the one above it.
    """
    found = stamped(text, name)
    if not found:
        raise Rejected(
            f"{name} holds no times. Begin its lines with when they are said, as in 0:01:05 so now we turn to."
        )
    for before, after in pairwise(found):
        if after.seconds < before.seconds:
            raise Rejected(
                f"{name}, line {after.at:,}: its time is before the one in line {before.at:,}. Put the lines in order; "
                "if it is no time but what is said, write it without the colon."
            )
    spoken = [Spoken(each.seconds, None, " ".join([each.beside, *_said(each)])) for each in found]
    head = " ".join(rows_of(text)[: found[0].at - 1])
    return [Spoken(0.0, None, head), *spoken]


def _said(each: Stamped) -> list[str]:
    """The lines below a time, without the one in which YouTube's panel repeats it in words."""
    first = each.below[0] if each.below and not each.beside else ""
    if _ALOUD.fullmatch(first) and sum(int(n) * _SECONDS[unit] for n, unit in _PART.findall(first)) == int(
        each.seconds
    ):
        return each.below[1:]
    return each.below
