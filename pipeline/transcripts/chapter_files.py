"""Chapters as files: what YouTube, video players, people, spreadsheets and programs read."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import pandas as pd

from pipeline.data.cell_values import as_clock, escape_formula
from pipeline.data.workbook_files import require_writable, require_xlsx, write_workbook
from pipeline.data.workbook_schema import COLUMN_NAMES, FALLBACK, LINES, TOPICS
from pipeline.errors import UsageError
from pipeline.files import file_aside, write_text
from pipeline.transcripts.chapter import Chaptered
from pipeline.transcripts.timestamps import as_stamp, as_written
from pipeline.transcripts.transcript import Talk

_MARKS = r"([\\`*_\[\]<>#|])"
_MARKUP, _ESCAPED = re.compile(_MARKS), re.compile(rf"\\{_MARKS}")
_NOT_ON_YOUTUBE = str.maketrans("<>", "‹›")  # which refuses angle brackets in a description
_YOUTUBE_CHAPTERS, _YOUTUBE_SECONDS = 3, 10
SUFFIXES = {
    ".txt": "youtube",
    ".vtt": "vtt",
    ".md": "md",
    ".csv": "csv",
    ".json": "json",
    ".xlsx": "xlsx",
}


def format_of(name: str | None, out: Path | None) -> str:
    """The format that was asked for by name, or by the suffix of `out`; YouTube's without either.

    Raises:
        UsageError: there is no such format, or it cannot be printed.
    """
    if name is None:
        name = SUFFIXES.get(out.suffix.lower()) if out else "youtube"
        if name is None:
            raise UsageError(
                f"--out {out}: no format has that suffix. Use one of {', '.join(SUFFIXES)}, or say --format."
            )
    if name not in SUFFIXES.values():
        raise UsageError(f"--format {name}: there is no such format. Use one of {', '.join(SUFFIXES.values())}.")
    if name == "xlsx" and out is None:
        raise UsageError("A workbook cannot be printed. Name a file: --out chapters.xlsx.")
    return name


def check_out(out: Path, name: str, *, overwrite: bool) -> None:
    """Raises:
    UsageError: `out` is a folder, is there and must not be overwritten, or is no .xlsx where the format is.
    """
    if name == "xlsx":
        require_xlsx(out)
    require_writable(out, overwrite=overwrite)


def check_talks(talks: Sequence[Talk], name: str) -> None:
    """Raises:
    UsageError: the format holds the chapters of one talk, and there are several.
    """
    if name == "vtt" and len(talks) > 1:
        raise UsageError(
            f"A WebVTT file is of one video, and there are {len(talks):,} lessons. Use csv, json, md or xlsx."
        )


def as_youtube(talks: Sequence[Chaptered]) -> str:
    """A line a chapter for a video's description: its start, in whole seconds of which no two chapters share one, and
    its title. The first starts at 0:00, without which YouTube shows none."""
    blocks = []
    for talk in talks:
        starts = accumulate([0, *(int(chapter.start_seconds) for chapter in talk.chapters[1:])], _after)
        rows = [
            f"{as_stamp(start)} {chapter.title.translate(_NOT_ON_YOUTUBE)}"
            for start, chapter in zip(starts, talk.chapters, strict=True)
        ]
        blocks.append("\n".join([*([_heading(talk.talk)] if len(talks) > 1 else []), *rows, ""]))
    return "\n".join(blocks)


def _after(before: int, start: int) -> int:
    return max(start, before + 1)


def as_webvtt(talks: Sequence[Chaptered]) -> str:
    """A WebVTT file of the kind `chapters`: a cue a chapter, as video players read it."""
    cues = []
    for chapter in (chapter for talk in talks for chapter in talk.chapters):
        times = f"{_vtt_time(chapter.start_seconds)} --> {_vtt_time(chapter.end_seconds)}"
        cues.append(f"{times}\n{html.escape(chapter.title, quote=False)}\n")
    return "\n".join(["WEBVTT\n", *cues])


def as_markdown(talks: Sequence[Chaptered]) -> str:
    """A heading a talk, and a list of its chapters."""
    blocks = []
    for talk in talks:
        rows = [f"- {as_written(chapter.start_seconds)} {_without_markup(chapter.title)}" for chapter in talk.chapters]
        blocks.append("\n".join([f"## {_without_markup(_heading(talk.talk))}", "", *rows, ""]))
    return "\n".join(blocks)


def as_csv(talks: Sequence[Chaptered]) -> str:
    """A table with the columns of a workbook's topics, whose cells a spreadsheet takes for text; and `FALLBACK`, if
    there is anything to say in it."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    marked = any(any(talk.marks) for talk in talks)
    writer.writerow([*COLUMN_NAMES[TOPICS], *([FALLBACK] if marked else [])])
    for talk in talks:
        for chapter, said in zip(talk.chapters, talk.marks, strict=True):
            cells = (talk.talk.course_title, talk.talk.lesson_num, as_clock(chapter.start_seconds), chapter.title)
            writer.writerow([escape_formula(cell) for cell in (*cells, *([said] if marked else []))])
    return file.getvalue()


def as_json(talks: Sequence[Chaptered]) -> str:
    """A list of lessons, each with its chapters; times in seconds. `FALLBACK` is there where it says anything."""
    content = [
        {
            "course_title": talk.talk.course_title,
            "lesson_num": talk.talk.lesson_num,
            "chapters": [
                {"start_seconds": each.start_seconds, "end_seconds": each.end_seconds, "title": each.title}
                | ({FALLBACK: said} if said else {})
                for each, said in zip(talk.chapters, talk.marks, strict=True)
            ],
        }
        for talk in talks
    ]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


TEXTS: dict[str, Callable[[Sequence[Chaptered]], str]] = {
    "youtube": as_youtube,
    "vtt": as_webvtt,
    "md": as_markdown,
    "csv": as_csv,
    "json": as_json,
}


def remarks(talk: Chaptered, name: str) -> list[str]:
    """What a person should look at before the chapters go where the format `name` is read."""
    said = talk.remarks()
    short = any(chapter.end_seconds - chapter.start_seconds < _YOUTUBE_SECONDS for chapter in talk.chapters)
    if name == "youtube" and (short or len(talk.chapters) < _YOUTUBE_CHAPTERS):
        said.append(
            f"{talk.talk.name}: YouTube shows chapters only where there are {_YOUTUBE_CHAPTERS} or more, "
            f"of {_YOUTUBE_SECONDS} seconds or more each."
        )
    return said


def write_chapters(talks: Sequence[Chaptered], out: Path, name: str) -> None:
    """The chapters of `talks` in the format `name`: all of the file or nothing.

    Raises:
        Rejected: a workbook cannot hold them.
    """
    if name == "xlsx":
        with file_aside(out) as aside:
            write_workbook(out, *_tables(talks), aside, _marks(talks))
    else:
        write_text(out, ("\ufeff" if name == "csv" else "") + TEXTS[name](talks))  # Excel takes it for UTF-8 by that


def _tables(talks: Sequence[Chaptered]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The topics and the lines of a workbook."""
    topics = [
        (talk.talk.course_title, talk.talk.lesson_num, chapter.start_seconds, chapter.title)
        for talk in talks
        for chapter in talk.chapters
    ]
    lines = [(talk.talk.course_title, talk.talk.lesson_num, *line) for talk in talks for line in talk.talk.lines]
    return tuple(
        pd.DataFrame(rows, columns=[*COLUMN_NAMES[name].values()]).assign(row=range(2, len(rows) + 2))
        for name, rows in ((TOPICS, topics), (LINES, lines))
    )


def _marks(talks: Sequence[Chaptered]) -> dict[int, str]:
    """By row of the topics' table, what the column `FALLBACK` says of its title."""
    said = [each for talk in talks for each in talk.marks]
    return {row: each for row, each in enumerate(said, start=2) if each}


def _heading(talk: Talk) -> str:
    return f"{talk.course_title}, lesson {talk.lesson_num}"


def _without_markup(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)


def from_markdown(text: str) -> str:
    """What `as_markdown` was given."""
    return _ESCAPED.sub(r"\1", text)


def _vtt_time(seconds: float) -> str:
    whole, milli = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{milli:03}"
