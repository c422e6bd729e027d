"""Chapter lists of players, editors and podcasts: how each format is recognised, read and written.

| format | written as | read by |
|---|---|---|
| podcast | Podcasting 2.0 JSON chapters | podcast apps |
| ffmetadata | ffmpeg's metadata file | ffmpeg, which puts chapters into mp4, m4a, mkv and mp3 |
| podlove | Podlove Simple Chapters (XML) | Podlove Web Player |
| audacity | Audacity label track | Audacity |
| cue | cue sheet | audio players |

OGM chapters (mkvmerge, mp4chaps), Matroska XML and yt-dlp's info.json are read only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from pipeline.data.single_values import MAX_SECONDS, replace_control_characters
from pipeline.errors import Rejected
from pipeline.transcripts.transcript import Topic

_PSC = "http://podlove.org/simple-chapters"
_CUE_FRAMES = 75  # per second
_FFMETADATA = ";FFMETADATA1"
_UNESCAPED_NEWLINE = re.compile(r"(?<!\\)\n")
_FFMETADATA_SPECIAL = re.compile(r"([=;#\\\n])")
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_OGM_TIME = re.compile(r"CHAPTER(\d+)\s*=\s*(.+)", re.IGNORECASE)
_OGM_NAME = re.compile(r"CHAPTER(\d+)NAME\s*=\s*(.*)", re.IGNORECASE)
_AUDACITY = re.compile(r"(\d+(?:[.,]\d+)?)\t(\d+(?:[.,]\d+)?)(?:\t(.*))?")
_CUE_TITLE = re.compile(r'\s*TITLE\s+(?:"(.*)"|(.*?))\s*', re.IGNORECASE)
_CUE_INDEX = re.compile(r"\s*INDEX\s+0?1\s+(\d+):(\d\d):(\d\d)\s*", re.IGNORECASE)
_CUE_TRACK = re.compile(r"\s*TRACK\s+\d+\s+\w+\s*", re.IGNORECASE)


class ChapterSpan(NamedTuple):
    """A chapter as a file holds it; times are in seconds."""

    start: float
    end: float
    title: str


@dataclass(frozen=True)
class ChapterFormat:
    """A format of chapter lists.

    recognise: whether a text is of this format.
    read: the topics of a text.
    write: the text for chapters, or None for a format that is only read.
    """

    name: str
    recognise: Callable[[str], bool]
    read: Callable[[str], list[Topic]]
    write: Callable[[Sequence[ChapterSpan]], str] | None = None


def read_chapter_list(text: str, name: str) -> list[Topic] | None:
    """Read the topics of a chapter list; return None if the text is of none of these formats.

    Args:
        text: the content of the file.
        name: the file's name, for messages.

    Raises:
        Rejected: the text is of one of these formats but damaged, or a time cannot be read.
    """
    text = text.lstrip("\ufeff")
    found = next((each for each in FORMATS if each.recognise(text)), None)
    if found is None:
        return None
    try:
        topics = found.read(text)
    except (
        ParseError,
        DefusedXmlException,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise Rejected(f"{name} is a damaged chapter list ({found.name}): {error}. Export it again.") from None
    if wrong := next((topic for topic in topics if not 0 <= topic.seconds <= MAX_SECONDS), None):
        raise Rejected(f"{name}: chapter '{wrong.title}' starts at {wrong.seconds:g} s, which is not a valid time.")
    return sorted((Topic(seconds, _one_line(title)) for seconds, title in topics), key=lambda topic: topic.seconds)


def _one_line(text: object) -> str:
    return " ".join(replace_control_characters(str(text or "")).split())


def _clock_seconds(written: str) -> float:
    match = _CLOCK.fullmatch(written.strip())
    if not match:
        raise ValueError(f"{written.strip()[:40]!r} is not a time")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


def _json_chapters(text: str, start: str) -> list[dict[str, object]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return []
    chapters = content.get("chapters") if isinstance(content, dict) else None
    if not isinstance(chapters, list) or not all(isinstance(each, dict) and start in each for each in chapters):
        return []
    return chapters


def _json_reader(start: str) -> Callable[[str], list[Topic]]:
    def read(text: str) -> list[Topic]:
        return [Topic(float(str(each[start])), _one_line(each.get("title"))) for each in _json_chapters(text, start)]

    return read


def _write_podcast(chapters: Sequence[ChapterSpan]) -> str:
    listed = [{"startTime": each.start, "endTime": each.end, "title": each.title} for each in chapters]
    return json.dumps({"version": "1.2.0", "chapters": listed}, ensure_ascii=False, indent=2) + "\n"


def _read_ffmetadata(text: str) -> list[Topic]:
    topics = []
    for part in re.split(r"^\[CHAPTER\]\s*$", text, flags=re.MULTILINE)[1:]:
        lines = [line for line in _UNESCAPED_NEWLINE.split(part) if "=" in line and line[0] not in "[#"]
        entries = dict(line.split("=", 1) for line in lines)
        numerator, _, denominator = entries.get("TIMEBASE", "1/1000000000").partition("/")
        seconds = int(entries["START"]) * int(numerator) / int(denominator or 1)
        topics.append(Topic(seconds, re.sub(r"\\(.)", r"\1", entries.get("title", ""), flags=re.DOTALL)))
    return topics


def _write_ffmetadata(chapters: Sequence[ChapterSpan]) -> str:
    lines = [_FFMETADATA]
    for start, end, title in chapters:
        times = f"START={round(start * 1000)}", f"END={round(end * 1000)}"
        escaped = _FFMETADATA_SPECIAL.sub(r"\\\1", title)
        lines += ["[CHAPTER]", "TIMEBASE=1/1000", *times, f"title={escaped}"]
    return "\n".join(lines) + "\n"


def _xml(text: str) -> Element:
    root: Element = fromstring(text.encode("utf-8"))
    return root


def _local_name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _named(root: Element, name: str) -> list[Element]:
    return [element for element in root.iter() if _local_name(element) == name]


def _read_podlove(text: str) -> list[Topic]:
    chapters = _named(_xml(text), "chapter")
    return [Topic(_clock_seconds(each.attrib["start"]), each.get("title", "")) for each in chapters]


def _write_podlove(chapters: Sequence[ChapterSpan]) -> str:
    root = Element("psc:chapters", {"version": "1.2", "xmlns:psc": _PSC})
    for each in chapters:
        SubElement(root, "psc:chapter", {"start": _clock(each.start), "title": each.title})
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _read_matroska(text: str) -> list[Topic]:
    topics = []
    for atom in _named(_xml(text), "ChapterAtom"):
        start = next(each for each in atom if _local_name(each) == "ChapterTimeStart").text or ""
        titles = _named(atom, "ChapterString")
        topics.append(Topic(_clock_seconds(start), titles[0].text or "" if titles else ""))
    return topics


def _read_ogm(text: str) -> list[Topic]:
    names = {match[1]: match[2].strip() for match in _OGM_NAME.finditer(text)}
    times = [match for match in map(_OGM_TIME.fullmatch, map(str.strip, text.splitlines())) if match]
    return [Topic(_clock_seconds(match[2]), names.get(match[1], "")) for match in times]


def _rows(text: str) -> list[str]:
    return [row for row in text.splitlines() if row.strip()]


def _is_audacity(text: str) -> bool:
    rows = _rows(text)
    return bool(rows) and all(_AUDACITY.fullmatch(row) or row.startswith("\\\t") for row in rows)


def _read_audacity(text: str) -> list[Topic]:
    labels = [match for row in _rows(text) if (match := _AUDACITY.fullmatch(row))]
    return [Topic(float(match[1].replace(",", ".")), match[3] or "") for match in labels]


def _write_audacity(chapters: Sequence[ChapterSpan]) -> str:
    return "".join(f"{each.start:.6f}\t{each.end:.6f}\t{each.title}\n" for each in chapters)


def _is_cue(text: str) -> bool:
    rows = _rows(text)
    return any(map(_CUE_TRACK.fullmatch, rows)) and any(map(_CUE_INDEX.fullmatch, rows))


def _read_cue(text: str) -> list[Topic]:
    topics: list[Topic] = []
    title = ""
    for row in _rows(text):
        if _CUE_TRACK.fullmatch(row):
            title = ""
        elif found := _CUE_TITLE.fullmatch(row):
            title = found[1] if found[1] is not None else found[2]
        elif index := _CUE_INDEX.fullmatch(row):
            minutes, seconds, frames = map(int, index.groups())
            topics.append(Topic(minutes * 60 + seconds + frames / _CUE_FRAMES, title))
    return topics


def _write_cue(chapters: Sequence[ChapterSpan]) -> str:
    """Write a cue sheet. It has no way to escape a double quote, so one becomes two single quotes."""
    lines = ['FILE "talk.mp3" MP3']
    for number, each in enumerate(chapters, start=1):
        frames = math.floor(each.start * _CUE_FRAMES + 1e-6)  # rounded up, a start could meet the next one
        minutes, rest = divmod(frames, 60 * _CUE_FRAMES)
        title = each.title.replace('"', "''")
        lines += [
            f"  TRACK {number:02} AUDIO",
            f'    TITLE "{title}"',
            f"    INDEX 01 {minutes:02}:{rest // _CUE_FRAMES:02}:{rest % _CUE_FRAMES:02}",
        ]
    return "\n".join(lines) + "\n"


def _starts_element(name: str) -> Callable[[str], bool]:
    sign = re.compile(rf"<(?:\w+:)?{name}[\s>/]")
    return lambda text: text.lstrip().startswith("<") and sign.search(text) is not None


FORMATS = (
    ChapterFormat(
        "podcast", lambda text: bool(_json_chapters(text, "startTime")), _json_reader("startTime"), _write_podcast
    ),
    ChapterFormat("info.json", lambda text: bool(_json_chapters(text, "start_time")), _json_reader("start_time")),
    ChapterFormat("ffmetadata", lambda text: text.startswith(_FFMETADATA), _read_ffmetadata, _write_ffmetadata),
    ChapterFormat("podlove", _starts_element("chapters"), _read_podlove, _write_podlove),
    ChapterFormat("matroska", _starts_element("Chapters"), _read_matroska),
    ChapterFormat(
        "ogm", lambda text: _OGM_TIME.match(text.lstrip()) is not None and bool(_OGM_NAME.search(text)), _read_ogm
    ),
    ChapterFormat("cue", _is_cue, _read_cue, _write_cue),
    ChapterFormat("audacity", _is_audacity, _read_audacity, _write_audacity),
)
"""The formats of chapter lists, in the order in which they are tried."""
