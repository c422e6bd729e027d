"""A whole talk as timed lines, from whatever file it is in."""

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
from pipeline.transcripts.captions import holds_cues, read_cues
from pipeline.transcripts.timed_json import read_json
from pipeline.transcripts.timed_text import read_timed_text
from pipeline.transcripts.transcript import Line, Talk, Topic, end_of

LARGEST = 64_000_000  # bytes; a talk of ten hours has about five million
_JSON = (".json", ".json3")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_talks(path: Path) -> list[Talk]:
    """The talks at `path`: one of a file with a transcript, one a lesson of a workbook, in the order of its lines, and
    last the lessons that have topics alone.

    Raises:
        UsageError: there is nothing at `path`, or a folder that is no workbook.
        Rejected: it is not a transcript, or a time in it cannot be read; the message names file and line.
        WorkbookRejected: the workbook has errors other than missing topics and titles.
    """
    if is_workbook(path):
        return _lessons(path)
    if not path.is_file():
        what = "is a folder without the tables of a workbook" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {what}. Give a .vtt, .srt, .sbv, .json or .txt file with times, or a workbook.")
    text = decoded(path)
    if path.suffix.lower() in _JSON:
        spoken = read_json(text, path.name)
    elif holds_cues(text):
        spoken = read_cues(text, path.name)
    else:
        spoken = read_timed_text(text, path.name)
    lines = [Line(said.seconds, " ".join(said.text.split())) for said in spoken]
    lines = sorted((line for line in lines if line.text), key=lambda line: line.seconds)
    if not lines:
        raise Rejected(f"{path} holds no words. Give the transcript of a talk.")
    # A window of YouTube's without words may last longer than the talk.
    ends = [said.end_seconds for said in spoken if said.end_seconds is not None and said.text.strip()]
    return [Talk(path.stem, "1", lines, end_of(lines, max(ends, default=0.0)))]


def refuse_too_large(path: Path) -> None:
    """Raises:
    Rejected: the file is larger than any talk.
    """
    if path.stat().st_size > LARGEST:
        raise Rejected(
            f"{path} has more than {LARGEST // 1_000_000} MB, which no talk has. Give the transcript of one talk."
        )


def decoded(path: Path) -> str:
    """The text of `path`, in UTF-8, or in what its first bytes say.

    Raises:
        Rejected: it is too large, or no text.
    """
    refuse_too_large(path)
    content = path.read_bytes()
    encoding = next((name for bom, name in _BOMS if content.startswith(bom)), None) or _without_bom(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Rejected(f"{path}, line {line:,}: it is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    if "\0" in text:
        raise Rejected(f"{path} is not a text file. Give a .vtt, .srt, .sbv, .json or .txt file, or an .xlsx.")
    return replace_control_characters(text)


def _without_bom(content: bytes) -> str:
    """UTF-16 shows in the zeros beside the first character, which is a digit, a letter or a bracket."""
    if content[1:2] == b"\0" and content[:1] != b"\0":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" and content[1:2] != b"\0" else "utf-8"


def _lessons(path: Path) -> list[Talk]:
    workbook = read_workbook(path)
    rest = [problem for problem in workbook.problems if not _is_for_us_to_mend(problem)]
    if errors(rest):
        raise WorkbookRejected(path, rest)
    known = without_fallback_titles(workbook.topics, path)
    topics = {lesson: _topics(rows) for lesson, rows in known.groupby(LESSON, sort=False)}
    talks = []
    for (course, number), rows in workbook.lines.groupby(LESSON, sort=False):
        spoken = rows.sort_values(["seconds", "row"])
        texts = spoken["text"].str.split().str.join(" ")
        lines = [Line(*line) for line in zip(spoken["seconds"].tolist(), texts.tolist(), strict=True) if line[1]]
        if lines:
            talks.append(Talk(course, number, lines, end_of(lines), topics.pop((course, number), [])))
    if not talks:
        raise Rejected(f"{path} holds no words. Fill in its transcripts.")
    return talks + [Talk(*lesson, [], rows[-1].seconds + 1, rows) for lesson, rows in topics.items()]


def _is_for_us_to_mend(problem: Problem) -> bool:
    """No topics, or topics without titles."""
    of_topics = (problem.sheet or "").lower().startswith(TOPICS)
    return of_topics and problem.kind in ("missing sheet", "missing table", "no rows", "empty title", "empty file")


def _topics(rows: pd.DataFrame) -> list[Topic]:
    ordered = rows.sort_values("start_seconds")
    return [Topic(*topic) for topic in zip(ordered["start_seconds"].tolist(), ordered["title"].tolist(), strict=True)]
