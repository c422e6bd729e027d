"""Read transcripts from a file of any supported format."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from pipeline.data.fallback_titles import without_fallback_titles
from pipeline.data.problems import Problem, WorkbookRejected, errors
from pipeline.data.single_values import as_clock, replace_control_characters
from pipeline.data.speaker_column import with_speakers
from pipeline.data.tables import is_workbook
from pipeline.data.text_encoding import declared_encoding, guess_encoding
from pipeline.data.workbook import read_workbook, reinterpretations
from pipeline.data.workbook_schema import SPEAKER, TOPICS
from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.captions import has_cues, read_cues
from pipeline.transcripts.file_sizes import check_size
from pipeline.transcripts.json_transcripts import find_json_transcript, parse_json, read_json
from pipeline.transcripts.lessons import lessons_from_tables
from pipeline.transcripts.speakers import split_speakers
from pipeline.transcripts.subtitle_files import read_subtitles, subtitle_format
from pipeline.transcripts.table_transcripts import is_table, read_table
from pipeline.transcripts.timed_text import NoTimes, read_timed_text
from pipeline.transcripts.transcript import Line, RawLine, Transcript, end_of_transcript
from pipeline.transcripts.word_documents import is_word_document, read_word_document
from pipeline.transcripts.xml_transcripts import is_xml, read_xml

_JSON = (".json", ".json3", ".sjson")
_LATE_START = 30 * 60.0  # seconds of silence that no recording begins with
_HOUR, _AFTER_FULL_HOUR = 3600.0, 60.0
_FRAMES = re.compile(r"^\s*(\d\d:\d\d:\d\d[:;]\d\d)\s*(?:-->|,|\t)", re.MULTILINE)
_TIMES_IN_A_PASSAGE = 2  # sentences may begin with a time of day


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


def is_passage(path: Path) -> bool:
    """Return whether a text file is one passage and no transcript: at most two of its lines have times."""
    try:
        return len(_read_raw_lines(path, [])) <= _TIMES_IN_A_PASSAGE
    except NoTimes:
        return True
    except Rejected:
        return False


def _read_raw_lines(path: Path, notes: list[str]) -> list[RawLine]:
    """Read the lines of a file in the format that its content shows; the suffix decides only between JSON and text."""
    if is_word_document(path):
        check_size(path)
        return read_timed_text(read_word_document(path), path.name)
    text = read_text(path, notes)
    if path.suffix.lower() in _JSON:
        return read_json(parse_json(text, path.name), path.name)
    if (content := find_json_transcript(text, path.name)) is not None:
        return read_json(content, path.name)
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
    try:
        text = content.decode(declared_encoding(content))
    except UnicodeDecodeError as error:
        guessed = None if notes is None else guess_encoding(content)
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


def _read_lessons(path: Path) -> list[Transcript]:
    workbook = read_workbook(path)
    others = [problem for problem in workbook.problems if not _concerns_missing_topics(problem)]
    if errors(others):
        raise WorkbookRejected(path, others)
    notes = tuple(f"{path.name}: {message}" for message in reinterpretations(workbook))
    spoken = with_speakers(workbook.lines, path).reindex(columns=[*workbook.lines, SPEAKER], fill_value="")
    transcripts = lessons_from_tables(without_fallback_titles(workbook.topics, path), spoken)
    if any(transcript.lines for transcript in transcripts):
        transcripts[0] = replace(transcripts[0], notes=notes)
    else:
        raise Rejected(f"{path} has no words. Fill in its transcripts.")
    return transcripts


def _concerns_missing_topics(problem: Problem) -> bool:
    """Return whether the problem is that topics or their titles are missing, which `lectern chapters` adds."""
    of_topics = (problem.sheet or "").lower().startswith(TOPICS)
    return of_topics and problem.kind in ("missing sheet", "missing table", "no rows", "empty title", "empty file")
