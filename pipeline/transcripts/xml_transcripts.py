"""Transcripts as XML: YouTube's srv1, srv2 and srv3, and TTML (also called DFXP)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from pipeline.data.single_values import MAX_SECONDS, replace_control_characters
from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import unescape_html
from pipeline.transcripts.transcript import RawLine

_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)(?::(\d+(?:\.\d+)?))?")
_OFFSET = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms|f|t)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_FRAMES = 30.0  # per second, where a TTML file names no rate: the default of the standard
_TTML_PARAMETERS = "{http://www.w3.org/ns/ttml#parameter}"


def is_xml(text: str) -> bool:
    """Return whether the text looks like an XML document."""
    return text.lstrip("\ufeff \t\r\n").startswith(("<?xml", "<tt", "<transcript", "<timedtext"))


def read_xml(text: str, name: str) -> list[RawLine]:
    """Read the lines of an XML transcript.

    Args:
        text: the content of the file.
        name: the file's name, for messages.

    Raises:
        Rejected: the text is not XML, is of no known kind, or a time cannot be read.
    """
    try:
        root = fromstring(text.lstrip("\ufeff \t\r\n").encode("utf-8"))
    except ParseError as error:
        raise Rejected(f"{name}, line {error.position[0]:,}: not XML ({error}). Download or export it again.") from None
    except (DefusedXmlException, LookupError, ValueError) as error:
        raise Rejected(
            f"{name} is XML that no caption program writes ({error}). Download or export it again."
        ) from None
    match _local(root):
        case "tt":
            spoken = list(_ttml(root, name))
        case "timedtext":
            spoken = list(_timed_text(root, name))
        case "transcript":
            spoken = list(_transcript(root, name))
        case other:
            raise Rejected(
                f"{name} is XML of a kind that Lectern does not read ('{other}'). It reads TTML and YouTube's "
                "srv1, srv2 and srv3. Export the captions as WebVTT (.vtt)."
            )
    return spoken


def _ttml(root: Element, name: str) -> Iterator[RawLine]:
    frames = float(root.get(f"{_TTML_PARAMETERS}frameRate") or _FRAMES)
    ticks = float(root.get(f"{_TTML_PARAMETERS}tickRate") or 1.0)
    for paragraph in _elements(root, "p"):
        begin = paragraph.get("begin")
        if begin is None:
            continue
        start = _ttml_seconds(begin, frames, ticks, name)
        end, duration = paragraph.get("end"), paragraph.get("dur")
        last = None if end is None else _ttml_seconds(end, frames, ticks, name)
        if last is None and duration is not None:
            last = start + _ttml_seconds(duration, frames, ticks, name)
        yield RawLine(start, last, _words(paragraph))


def _ttml_seconds(written: str, frames: float, ticks: float, name: str) -> float:
    if clock := _CLOCK.fullmatch(written.strip()):
        hours, minutes, seconds, frame = clock.groups()
        found = int(hours) * 3600 + int(minutes) * 60 + float(seconds) + float(frame or 0) / frames
    elif offset := _OFFSET.fullmatch(written.strip()):
        number, unit = float(offset[1]), offset[2]
        found = number / frames if unit == "f" else number / ticks if unit == "t" else number * _UNITS[unit]
    else:
        raise _not_a_time(written, name)
    return _within(found, written, name)


def _timed_text(root: Element, name: str) -> Iterator[RawLine]:
    """Read srv3, whose lines are `p` in milliseconds, or srv2, whose lines are `text` in milliseconds."""
    for line in [*_elements(root, "p"), *_elements(root, "text")]:
        start, duration = line.get("t"), line.get("d")
        if start is None:
            continue
        begin = _number(start, name, per_second=1000)
        end = begin + _number(duration, name, per_second=1000) if duration else None
        yield RawLine(begin, end, _words(line))


def _transcript(root: Element, name: str) -> Iterator[RawLine]:
    """Read srv1, whose lines are `text` in seconds."""
    for line in _elements(root, "text"):
        start, duration = _number(line.get("start") or "", name), line.get("dur")
        yield RawLine(start, start + _number(duration, name) if duration else None, _words(line))


def _number(written: str, name: str, *, per_second: float = 1.0) -> float:
    try:
        return _within(float(written) / per_second, written, name)
    except ValueError:
        raise _not_a_time(written, name) from None


def _within(seconds: float, written: str, name: str) -> float:
    if not 0 <= seconds <= MAX_SECONDS:
        raise _not_a_time(written, name)
    return seconds


def _not_a_time(written: str, name: str) -> Rejected:
    return Rejected(f"{name}: {written[:60]!r} is not a time. Export the captions as WebVTT (.vtt).")


def _elements(root: Element, name: str) -> Iterator[Element]:
    return (element for element in root.iter() if isinstance(element.tag, str) and _local(element) == name)


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _words(element: Element) -> str:
    """Return the text of an element, with a space for each line break."""
    for line_break in _elements(element, "br"):
        line_break.text = " "
    return replace_control_characters(" ".join(unescape_html("".join(element.itertext())).split()))
