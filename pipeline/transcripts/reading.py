"""Read transcripts from a file of any supported format."""

from __future__ import annotations

import codecs
from pathlib import Path

import pandas as pd

from pipeline.data.cell_values import replace_control_characters
from pipeline.data.fallback_titles import without_fallback_titles
from pipeline.data.problems import Problem, WorkbookRejected, errors
from pipeline.data.tables import is_workbook
from pipeline.data.workbook import read_workbook
from pipeline.data.workbook_schema import LESSON, TOPICS
from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.captions import has_cues, read_cues
from pipeline.transcripts.timed_json import read_json
from pipeline.transcripts.timed_text import read_timed_text
from pipeline.transcripts.transcript import Line, RawLine, Topic, Transcript, end_of_transcript

LARGEST = 64_000_000  # bytes; the transcript of ten hours has about five million
_JSON = (".json", ".json3")
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
        raise UsageError(f"{path} {what}. Give a .vtt, .srt, .sbv, .json or .txt file with times, or a workbook.")
    return [_transcript(path, _read_raw_lines(path))]


def _read_raw_lines(path: Path) -> list[RawLine]:
    text = read_text(path)
    if path.suffix.lower() in _JSON:
        return read_json(text, path.name)
    if has_cues(text):
        return read_cues(text, path.name)
    return read_timed_text(text, path.name)


def _transcript(path: Path, raw_lines: list[RawLine]) -> Transcript:
    lines = [Line(line.seconds, " ".join(line.text.split())) for line in raw_lines]
    lines = sorted((line for line in lines if line.text), key=lambda line: line.seconds)
    if not lines:
        raise Rejected(f"{path} has no words. Give a transcript.")
    # YouTube's JSON may have a window without words that ends after the video.
    ends = [line.end_seconds for line in raw_lines if line.end_seconds is not None and line.text.strip()]
    return Transcript(path.stem, "1", lines, end_of_transcript(lines, max(ends, default=0.0)))


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


def read_text(path: Path) -> str:
    """Read a text file in the encoding that its first bytes show, else in UTF-8. Control characters become spaces.

    Raises:
        Rejected: the file is too large, or not text.
    """
    check_size(path)
    content = path.read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    try:
        text = content.decode(encoding or _encoding_without_mark(content))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Rejected(f"{path}, line {line:,}: this is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    if "\0" in text:
        raise Rejected(f"{path} is not a text file. Give a .vtt, .srt, .sbv, .json or .txt file, or an .xlsx.")
    return replace_control_characters(text)


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
    known = without_fallback_titles(workbook.topics, path)
    topics = {lesson: _topics(rows) for lesson, rows in known.groupby(LESSON, sort=False)}
    transcripts = []
    for (course, number), rows in workbook.lines.groupby(LESSON, sort=False):
        ordered = rows.sort_values(["seconds", "row"])
        texts = ordered["text"].str.split().str.join(" ")
        lines = [Line(*line) for line in zip(ordered["seconds"].tolist(), texts.tolist(), strict=True) if line[1]]
        if lines:
            known_topics = topics.pop((course, number), [])
            transcripts.append(Transcript(course, number, lines, end_of_transcript(lines), known_topics))
    if not transcripts:
        raise Rejected(f"{path} has no words. Fill in its transcripts.")
    return transcripts + [
        Transcript(course, number, [], rows[-1].seconds + 1, rows) for (course, number), rows in topics.items()
    ]


def _concerns_missing_topics(problem: Problem) -> bool:
    """Return whether the problem is that topics or their titles are missing, which `lectern chapters` adds."""
    of_topics = (problem.sheet or "").lower().startswith(TOPICS)
    return of_topics and problem.kind in ("missing sheet", "missing table", "no rows", "empty title", "empty file")


def _topics(rows: pd.DataFrame) -> list[Topic]:
    ordered = rows.sort_values("start_seconds")
    return [Topic(*topic) for topic in zip(ordered["start_seconds"].tolist(), ordered["title"].tolist(), strict=True)]
