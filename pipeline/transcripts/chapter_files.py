"""Write chapters to files: for YouTube, video players, people, spreadsheets and programs."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import pandas as pd

from pipeline.data.single_values import as_clock, escape_formula
from pipeline.data.workbook_files import require_writable, require_xlsx, write_workbook
from pipeline.data.workbook_schema import COLUMN_NAMES, FALLBACK, LINES, SPEAKER, TOPICS
from pipeline.errors import UsageError
from pipeline.files import file_aside, write_text
from pipeline.transcripts.automatic_note import add_note
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.chapter_lists import FORMATS, ChapterSpan
from pipeline.transcripts.timestamps import short_time, youtube_time
from pipeline.transcripts.transcript import Transcript

_MARKDOWN_CHARACTERS = r"([\\`*_\[\]<>#|])"
_UNESCAPED, _ESCAPED = re.compile(_MARKDOWN_CHARACTERS), re.compile(rf"\\{_MARKDOWN_CHARACTERS}")
_OTHER_MARKUP = re.compile(r"\{(?=\\an?\d)|\[(?=br\])", re.IGNORECASE)
_YOUTUBE_BRACKETS = str.maketrans("<>", "‹›")  # YouTube rejects angle brackets in a description
_YOUTUBE_FEWEST_CHAPTERS, _YOUTUBE_SHORTEST_SECONDS = 3, 10
SUFFIXES = {
    ".txt": "youtube",
    ".vtt": "vtt",
    ".md": "md",
    ".csv": "csv",
    ".json": "json",
    ".xlsx": "xlsx",
    ".ffmetadata": "ffmetadata",
    ".psc": "podlove",
    ".cue": "cue",
}
_LISTS = {each.name: each.write for each in FORMATS if each.write}
NAMES = (*dict.fromkeys([*SUFFIXES.values(), *_LISTS]),)
"""The formats in which chapters are written, in the order of the documentation."""


def format_of(name: str | None, out: Path | None) -> str:
    """Return the output format: `name`, else the one of the suffix of `out`, else `youtube`.

    Raises:
        UsageError: the format does not exist, or cannot be printed.
    """
    if name is None:
        name = SUFFIXES.get(out.suffix.lower()) if out else "youtube"
        if name is None:
            raise UsageError(f"--out {out}: unknown suffix. Use one of {', '.join(SUFFIXES)}, or add --format.")
    if name not in NAMES:
        raise UsageError(f"--format {name}: unknown format. Use one of {', '.join(NAMES)}.")
    if name == "xlsx" and out is None:
        raise UsageError("A workbook cannot be printed. Name a file: --out chapters.xlsx.")
    return name


def check_out(out: Path, name: str, *, overwrite: bool) -> None:
    """Check that the format `name` can be written to `out`.

    Raises:
        UsageError: `out` is a folder, exists without `overwrite`, or lacks the suffix .xlsx that a workbook needs.
    """
    if name == "xlsx":
        require_xlsx(out)
    require_writable(out, overwrite=overwrite)


def check_count(transcripts: Sequence[Transcript], name: str) -> None:
    """Check that one file of the format `name` can hold the chapters of all transcripts.

    Raises:
        UsageError: the format allows one transcript, and there are more.
    """
    if name in ("vtt", *_LISTS) and len(transcripts) > 1:
        raise UsageError(
            f"A file in the format {name} describes one recording, and there are {len(transcripts):,} lessons. "
            "Use csv, json, md or xlsx."
        )


def as_youtube(lessons: Sequence[ChapteredTranscript]) -> str:
    """Format chapters for the description of a YouTube video: one line each, with start and title.

    YouTube needs whole seconds, a first chapter at 0:00, and different starts.
    """
    blocks = []
    for lesson in lessons:
        starts = accumulate(
            [0, *(int(chapter.start_seconds) for chapter in lesson.chapters[1:])], _at_least_a_second_later
        )
        rows = [
            f"{youtube_time(start)} {chapter.title.translate(_YOUTUBE_BRACKETS)}"
            for start, chapter in zip(starts, lesson.chapters, strict=True)
        ]
        blocks.append("\n".join([*([_heading(lesson.transcript)] if len(lessons) > 1 else []), *rows, ""]))
    return "\n".join(blocks)


def _at_least_a_second_later(before: int, start: int) -> int:
    return max(start, before + 1)


def as_webvtt(lessons: Sequence[ChapteredTranscript]) -> str:
    """Format chapters as a WebVTT file of the kind `chapters`, for video players."""
    cues = []
    for chapter in (chapter for lesson in lessons for chapter in lesson.chapters):
        times = f"{_webvtt_time(chapter.start_seconds)} --> {_webvtt_time(chapter.end_seconds)}"
        cues.append(f"{times}\n{_escape_webvtt(chapter.title)}\n")
    return "\n".join(["WEBVTT\n", *cues])


def _escape_webvtt(title: str) -> str:
    """Escape markup, also that of other caption formats, which WebVTT files have in practice."""
    return _OTHER_MARKUP.sub(lambda found: f"&#{ord(found[0])};", html.escape(title, quote=False))


def as_markdown(lessons: Sequence[ChapteredTranscript]) -> str:
    """Format chapters as Markdown: a heading for each lesson, and a list of its chapters."""
    blocks = []
    for lesson in lessons:
        rows = [
            f"- {short_time(chapter.start_seconds)} {_escape_markdown(chapter.title)}" for chapter in lesson.chapters
        ]
        blocks.append("\n".join([f"## {_escape_markdown(_heading(lesson.transcript))}", "", *rows, ""]))
    return "\n".join(blocks)


def as_csv(lessons: Sequence[ChapteredTranscript]) -> str:
    """Format chapters as CSV with the columns of a workbook's topics.

    A spreadsheet program reads every cell as text. The column `FALLBACK` is left out if it would be empty.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    with_marks = any(any(lesson.fallback_marks) for lesson in lessons)
    writer.writerow([*COLUMN_NAMES[TOPICS], *([FALLBACK] if with_marks else [])])
    for lesson in lessons:
        course, number = lesson.transcript.course_title, lesson.transcript.lesson_num
        for chapter, mark in zip(lesson.chapters, lesson.fallback_marks, strict=True):
            cells = (course, number, as_clock(chapter.start_seconds), chapter.title, *([mark] if with_marks else []))
            writer.writerow([escape_formula(cell) for cell in cells])
    return file.getvalue()


def as_json(lessons: Sequence[ChapteredTranscript]) -> str:
    """Format chapters as JSON: a list of lessons, each with its chapters; times in seconds.

    A chapter has the key `FALLBACK` if its title is a fallback.
    """
    content = [
        {
            "course_title": lesson.transcript.course_title,
            "lesson_num": lesson.transcript.lesson_num,
            "chapters": [
                {"start_seconds": each.start_seconds, "end_seconds": each.end_seconds, "title": each.title}
                | ({FALLBACK: mark} if mark else {})
                for each, mark in zip(lesson.chapters, lesson.fallback_marks, strict=True)
            ],
        }
        for lesson in lessons
    ]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _as_list(write: Callable[[Sequence[ChapterSpan]], str], lessons: Sequence[ChapteredTranscript]) -> str:
    """Format the chapters of one lesson as a chapter list."""
    chapters = (chapter for lesson in lessons for chapter in lesson.chapters)
    return write([ChapterSpan(each.start_seconds, each.end_seconds, each.title) for each in chapters])


TEXTS: dict[str, Callable[[Sequence[ChapteredTranscript]], str]] = {
    "youtube": as_youtube,
    "vtt": as_webvtt,
    "md": as_markdown,
    "csv": as_csv,
    "json": as_json,
    **{name: partial(_as_list, write) for name, write in _LISTS.items()},
}
"""The formats that are text, with the function that writes each."""


def remarks(lesson: ChapteredTranscript, name: str) -> list[str]:
    """List what a person should check before using the chapters in the format `name`."""
    found = lesson.remarks()
    durations = [chapter.end_seconds - chapter.start_seconds for chapter in lesson.chapters]
    if name == "youtube" and (len(durations) < _YOUTUBE_FEWEST_CHAPTERS or min(durations) < _YOUTUBE_SHORTEST_SECONDS):
        found.append(
            f"{lesson.transcript.name}: YouTube shows chapters only if there are {_YOUTUBE_FEWEST_CHAPTERS} or more "
            f"and each lasts {_YOUTUBE_SHORTEST_SECONDS} seconds or more."
        )
    return found


def as_text(lessons: Sequence[ChapteredTranscript], name: str, *, note: bool = False) -> str:
    """Format chapters as text.

    Args:
        name: a format other than `xlsx`.
        note: whether to add that the chapters were written automatically. The format must have room for it.
    """
    text = TEXTS[name](lessons)
    return add_note(text, name) if note else text


def write_chapters(lessons: Sequence[ChapteredTranscript], out: Path, name: str, *, note: bool = False) -> None:
    """Write chapters to `out` in the format `name`. If this fails, `out` stays unchanged.

    Args:
        note: as in `as_text`.

    Raises:
        Rejected: a workbook cannot hold the chapters.
    """
    if name == "xlsx":
        with file_aside(out) as aside:
            lines = _lines_table([lesson.transcript for lesson in lessons])
            write_workbook(out, _topics_table(lessons), lines, aside, _fallback_marks(lessons))
    else:
        byte_order_mark = "\ufeff" if name == "csv" else ""  # Excel needs it to recognise UTF-8
        write_text(out, byte_order_mark + as_text(lessons, name, note=note))


def write_transcripts(transcripts: Sequence[Transcript], out: Path) -> None:
    """Write transcripts and their known topics to a workbook. If this fails, `out` stays unchanged.

    Raises:
        Rejected: a workbook cannot hold them.
    """
    topics = [(each.course_title, each.lesson_num, *topic) for each in transcripts for topic in each.topics]
    with file_aside(out) as aside:
        write_workbook(out, _table(TOPICS, topics), _lines_table(transcripts), aside, {})


def _topics_table(lessons: Sequence[ChapteredTranscript]) -> pd.DataFrame:
    return _table(
        TOPICS,
        [
            (lesson.transcript.course_title, lesson.transcript.lesson_num, chapter.start_seconds, chapter.title)
            for lesson in lessons
            for chapter in lesson.chapters
        ],
    )


def _lines_table(transcripts: Sequence[Transcript]) -> pd.DataFrame:
    spoken = [(each, line) for each in transcripts for line in each.lines]
    table = _table(LINES, [(each.course_title, each.lesson_num, line.seconds, line.text) for each, line in spoken])
    return table.assign(**{SPEAKER: [line.speaker for _, line in spoken]})


def _table(name: str, rows: list[tuple[str, str, float, str]]) -> pd.DataFrame:
    """Build a table with the row numbers that Excel will show, below the heading."""
    return pd.DataFrame(rows, columns=[*COLUMN_NAMES[name].values()]).assign(row=range(2, len(rows) + 2))


def _fallback_marks(lessons: Sequence[ChapteredTranscript]) -> dict[int, str]:
    """Map rows of the topics table to the cell of the column `FALLBACK`; rows with an empty cell are left out."""
    marks = [mark for lesson in lessons for mark in lesson.fallback_marks]
    return {row: mark for row, mark in enumerate(marks, start=2) if mark}


def _heading(transcript: Transcript) -> str:
    return f"{transcript.course_title}, lesson {transcript.lesson_num}"


def _escape_markdown(text: str) -> str:
    return _UNESCAPED.sub(r"\\\1", text)


def unescape_markdown(text: str) -> str:
    """Undo the escapes that `as_markdown` writes."""
    return _ESCAPED.sub(r"\1", text)


def _webvtt_time(seconds: float) -> str:
    whole, milli = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{milli:03}"
