"""Read transcripts from a file of any supported format."""

from __future__ import annotations

import codecs
import json
import re
from itertools import pairwise
from pathlib import Path

from pipeline.data.cell_values import as_clock, replace_control_characters
from pipeline.data.fallback_titles import without_fallback_titles
from pipeline.data.problems import Problem, WorkbookRejected, errors
from pipeline.data.tables import is_workbook
from pipeline.data.workbook import read_workbook
from pipeline.data.workbook_schema import TOPICS
from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.captions import has_cues, read_cues
from pipeline.transcripts.json_transcripts import read_json
from pipeline.transcripts.lessons import lessons_from_tables
from pipeline.transcripts.speakers import split_speakers
from pipeline.transcripts.subtitle_files import read_subtitles, subtitle_format
from pipeline.transcripts.table_transcripts import is_table, read_table
from pipeline.transcripts.timed_text import read_timed_text
from pipeline.transcripts.transcript import Line, RawLine, Transcript, end_of_transcript
from pipeline.transcripts.word_documents import is_word_document, read_word_document
from pipeline.transcripts.xml_transcripts import is_xml, read_xml

LARGEST = 64_000_000  # bytes; the transcript of ten hours has about five million
_JSON = (".json", ".json3", ".sjson")
_LATE_START = 30 * 60.0  # seconds of silence that no recording begins with
_HOUR, _AFTER_FULL_HOUR = 3600.0, 60.0
_FRAMES = re.compile(r"^\s*(\d\d:\d\d:\d\d[:;]\d\d)\s*(?:-->|,|\t)", re.MULTILINE)
_WESTERN = "cp1252"
_ALIKE = 0.02  # difference of "chaos" below which two encodings fit a text equally well
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_transcripts(path: Path) -> list[Transcript]:
    """Read the transcript in a file, or one for each lesson of a workbook.

    The lessons of a workbook come in the order of its lines. Lessons that have only topics come last.

    Raises:
        UsageError: `path` does not exist, or is a folder without a workbook's tables.
        Rejected: the file is not a transcript, or a time cannot be read. The message names file and line.
        WorkbookRejected: the workbook has errors other than missing topics and titles.
    """
    if is_workbook(path):
        return _read_lessons(path)
    if not path.is_file():
        what = "is a folder without the tables of a workbook" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {what}. Give captions, a transcript with times in another format, or a workbook.")
    notes: list[str] = []
    return [_transcript(path, _read_raw_lines(path, notes), notes)]


def _read_raw_lines(path: Path, notes: list[str]) -> list[RawLine]:
    """Read the lines of a file in the format that its content shows; the suffix decides only between JSON and text."""
    if is_word_document(path):
        check_size(path)
        return read_timed_text(read_word_document(path), path.name)
    text = read_text(path, notes)
    if path.suffix.lower() in _JSON or _is_json(text):
        return read_json(text, path.name)
    if kind := subtitle_format(text):
        return read_subtitles(text, path.name, kind)
    if frames := _FRAMES.search(text):
        raise Rejected(
            f"{path.name} has times with frames (hh:mm:ss:ff), such as {frames[1]}. Export the captions with "
            "milliseconds, as SubRip (.srt) or WebVTT (.vtt)."
        )
    readers = ((is_xml, read_xml), (has_cues, read_cues), (is_table, read_table))
    read = next((read for recognise, read in readers if recognise(text)), read_timed_text)
    return read(text, path.name)


def _is_json(text: str) -> bool:
    """Return whether a text is JSON, and not a sentence that begins with a bracket."""
    if not text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        return False
    try:
        return isinstance(json.loads(text.lstrip("\ufeff")), dict | list)
    except (ValueError, RecursionError):
        return False


def _transcript(path: Path, raw_lines: list[RawLine], notes: list[str]) -> Transcript:
    spoken = _with_speakers([line for line in raw_lines if line.text.strip()])
    if not spoken:
        raise Rejected(f"{path} has no words. Give a transcript.")
    notes += _notes_on_order(spoken)
    lines = sorted((_line(each) for each in spoken), key=lambda line: line.seconds)
    # YouTube's JSON may have a window without words that ends after the video.
    end = end_of_transcript(lines, max((line.end_seconds or 0.0 for line in spoken), default=0.0))
    if shift := _clock_offset(lines, end):
        lines = [line._replace(seconds=line.seconds - shift) for line in lines]
        end -= shift
        notes.append(f"its clock starts at {as_clock(shift)}; all times are counted from there.")
    return Transcript(path.stem, "1", lines, end, notes=tuple(f"{path.name}: {note}" for note in notes))


def _line(raw: RawLine) -> Line:
    return Line(raw.seconds, " ".join(raw.text.split()), raw.speaker)


def _with_speakers(raw_lines: list[RawLine]) -> list[RawLine]:
    """Take speakers' names out of the words, unless the format keeps them apart."""
    if any(line.speaker for line in raw_lines):
        return raw_lines
    split = split_speakers([line.text for line in raw_lines])
    found = [line._replace(text=text, speaker=name) for line, (name, text) in zip(raw_lines, split, strict=True)]
    return [line for line in found if line.text.strip()]


def _notes_on_order(spoken: list[RawLine]) -> list[str]:
    """Describe times that run backwards."""
    back = [after for before, after in pairwise(spoken) if after.seconds < before.seconds]
    if not back:
        return []
    return [
        f"{len(back):,} of its times are before the time above them, the first at {as_clock(back[0].seconds)}. The "
        "lines were put in order of time; check whether these times are right."
    ]


def _clock_offset(lines: list[Line], end: float) -> float:
    """Return the time at which the clock of a transcript starts, if that is not the start of the recording.

    A clock that shows the time of day, or a time code that begins at a full hour, starts long before the first line.
    """
    first = lines[0].seconds
    starts_at_full_hour = first >= _HOUR and first % _HOUR < _AFTER_FULL_HOUR
    return first if first >= _LATE_START and (first > end - first or starts_at_full_hour) else 0.0


def check_size(path: Path) -> None:
    """Check that a file is no larger than a transcript can be.

    Raises:
        Rejected: it is larger.
    """
    if path.stat().st_size > LARGEST:
        raise Rejected(
            f"{path} is larger than {LARGEST // 1_000_000} MB, too large for a transcript. Give the transcript of one "
            "lesson."
        )


def read_text(path: Path, notes: list[str] | None = None) -> str:
    """Read a text file in the encoding that its first bytes show, else in UTF-8, else in the likeliest encoding.

    Control characters become spaces.

    Args:
        path: the file.
        notes: a list to which a note is added if the encoding was guessed. Without it, the file is rejected instead.

    Raises:
        Rejected: the file is too large, or not text.
    """
    check_size(path)
    content = path.read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    try:
        text = content.decode(encoding or _encoding_without_mark(content))
    except UnicodeDecodeError as error:
        guessed = None if notes is None else _guess_encoding(content)
        if notes is None or guessed is None:
            line = content.count(b"\n", 0, error.start) + 1
            raise Rejected(
                f"{path}, line {line:,}: this is not UTF-8 text ({error.reason}). Save it as UTF-8."
            ) from None
        text = content.decode(guessed)
        notes.append(f"it is not UTF-8; it was read as {guessed}. If letters look wrong, save it as UTF-8.")
    if "\0" in text:
        raise Rejected(f"{path} is not a text file. Give a transcript as captions, text, JSON, XML or a workbook.")
    return replace_control_characters(text)


def _guess_encoding(content: bytes) -> str | None:
    """Return the likeliest encoding of a text, or None if the bytes are not text."""
    if b"\0" in content:
        return None
    from charset_normalizer import from_bytes  # few files need it

    matches = from_bytes(content)
    best = matches.best()
    if best is None:
        return None
    # Of encodings that fit equally well, the one of Western Windows is the most common by far.
    alike = [
        match.encoding for match in matches if match.chaos <= best.chaos + _ALIKE and match.coherence >= best.coherence
    ]
    return _WESTERN if _WESTERN in alike else best.encoding


def _encoding_without_mark(content: bytes) -> str:
    """Recognise UTF-16 by the zero byte in its first character, which is a digit, a letter or a bracket."""
    if content[1:2] == b"\0" and content[:1] != b"\0":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" and content[1:2] != b"\0" else "utf-8"


def _read_lessons(path: Path) -> list[Transcript]:
    workbook = read_workbook(path)
    others = [problem for problem in workbook.problems if not _concerns_missing_topics(problem)]
    if errors(others):
        raise WorkbookRejected(path, others)
    transcripts = lessons_from_tables(without_fallback_titles(workbook.topics, path), workbook.lines)
    if not any(transcript.lines for transcript in transcripts):
        raise Rejected(f"{path} has no words. Fill in its transcripts.")
    return transcripts


def _concerns_missing_topics(problem: Problem) -> bool:
    """Return whether the problem is that topics or their titles are missing, which `lectern chapters` adds."""
    of_topics = (problem.sheet or "").lower().startswith(TOPICS)
    return of_topics and problem.kind in ("missing sheet", "missing table", "no rows", "empty title", "empty file")
