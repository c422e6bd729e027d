"""Read topics that are already known: from a workbook, CSV, WebVTT or JSON, or from lines such as `0:00 Title`."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pipeline.data.fallback_titles import is_fallback, without_fallback_titles
from pipeline.data.lesson_checks import check_lessons
from pipeline.data.problems import Problem, WorkbookRejected, errors
from pipeline.data.sheet_parsing import parse_sheet
from pipeline.data.single_values import FORMULA_ESCAPE, MAX_SECONDS, as_clock, replace_control_characters
from pipeline.data.tables import is_workbook, open_tables
from pipeline.data.workbook_schema import COLUMN_NAMES, FALLBACK, LESSON, TOPICS
from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.captions import read_cues
from pipeline.transcripts.chapter_files import unescape_markdown
from pipeline.transcripts.chapter_lists import read_chapter_list
from pipeline.transcripts.json_transcripts import parse_json
from pipeline.transcripts.reading import read_text
from pipeline.transcripts.topic_lines import read_topic_lines
from pipeline.transcripts.transcript import Topic, Transcript

Lesson = tuple[str, str]
"""course_title and lesson_num."""

UNNAMED: Lesson = ("", "")
"""The lesson of a file that names none."""

_COLUMNS = {TOPICS: tuple(COLUMN_NAMES[TOPICS])}


class _JsonChapter(BaseModel):
    start_seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)]
    title: str = ""
    fallback: str | bool = ""  # a text in files, a boolean in answers over HTTP

    @property
    def topic(self) -> Topic:
        title = " ".join(replace_control_characters(self.title).split())
        return Topic(self.start_seconds, "" if is_fallback(title, str(self.fallback)) else title)


class _JsonLesson(BaseModel):
    course_title: str = ""
    lesson_num: str = ""
    chapters: list[_JsonChapter]


def replace_topics(transcripts: Sequence[Transcript], path: Path) -> list[Transcript]:
    """Replace the topics of transcripts with those in the file at `path`.

    If there is one transcript and one lesson in the file, they belong together. Otherwise lessons are matched by name,
    and a transcript that the file does not name keeps its topics.

    Raises:
        UsageError: `path` does not exist.
        Rejected: the file cannot be read, or has topics of a lesson that is not among `transcripts`.
    """
    known = read_topics(path)
    if len(transcripts) == len(known) == 1:
        return [replace(transcripts[0], topics=next(iter(known.values())))]
    lessons = [(transcript.course_title, transcript.lesson_num) for transcript in transcripts]
    unknown = [lesson for lesson in known if lesson not in lessons]
    if unknown:
        course, number = unknown[0]
        if not course:
            raise Rejected(
                f"{path} does not say which of the {len(transcripts):,} lessons its topics belong to. Give the topics "
                "in a workbook or a CSV with course_title and lesson_num."
            )
        raise Rejected(
            f"{path} has topics of lesson {number} of {course}, but the transcripts have no such lesson. Correct "
            "course_title and lesson_num, or delete these topics."
        )
    return [
        replace(transcript, topics=known.get(lesson, transcript.topics))
        for transcript, lesson in zip(transcripts, lessons, strict=True)
    ]


def read_topics(path: Path) -> dict[Lesson, list[Topic]]:
    """Read the topics of each lesson, in order of time. Titles that are marked as fallbacks are left empty.

    Raises:
        UsageError: `path` does not exist.
        Rejected: the file has no topics, or cannot be read. The message names file and line.
    """
    if is_workbook(path):
        return _read_tables(path, path)
    if not path.is_file():
        raise UsageError(f"--topics {path} does not exist. Give a workbook, a CSV or lines such as 0:00 Title.")
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    text = read_text(path)
    if (listed := read_chapter_list(text, path.name)) is not None:
        _check_order(listed, path)
        return {UNNAMED: listed}
    if path.suffix.lower() == ".json":
        return _read_json(path, text)
    if text.startswith("WEBVTT"):
        topics = [Topic(cue.seconds, cue.text) for cue in read_cues(text, path.name, may_roll=False)]
    else:
        if path.suffix.lower() == ".md":
            text = unescape_markdown(text)
        topics = read_topic_lines(text, path.name)
    if not topics:
        raise Rejected(f"{path} has no topics. Write one on each line, such as 0:00 Title.")
    _check_order(topics, path)
    return {UNNAMED: topics}


def _read_csv(path: Path) -> dict[Lesson, list[Topic]]:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(path, Path(folder) / f"{TOPICS}.csv")
        return _read_tables(Path(folder), path)


def _read_tables(source: Path, path: Path) -> dict[Lesson, list[Topic]]:
    """Read the topics of a workbook or a folder of tables. A table may lack the columns that name a lesson.

    Args:
        source: the workbook or folder to read.
        path: the file that the user gave, for messages. It differs from `source` for a CSV.
    """
    tables, problems = open_tables(source, _COLUMNS, (FALLBACK,))
    unnamed = False
    if TOPICS in tables:
        sheet, found = parse_sheet(tables[TOPICS], COLUMN_NAMES[TOPICS])
        problems += found
        if source != path:
            sheet = replace(sheet, rows=_remove_apostrophes(sheet.rows))
        if unnamed := not {*LESSON} & {*sheet.rows}:
            sheet = replace(sheet, rows=sheet.rows.assign(course_title=path.stem, lesson_num="1"))
            problems = [problem for problem in problems if problem.column not in LESSON]
        if {*LESSON, sheet.time} <= {*sheet.rows}:
            problems += check_lessons(sheet, None)
    problems = [_name_file(problem, source, path) for problem in problems if problem.kind != "empty title"]
    if errors(problems):
        raise WorkbookRejected(path, problems)
    known = without_fallback_titles(sheet.rows, source)
    lessons = known.sort_values("start_seconds").groupby(LESSON, sort=False)
    return {UNNAMED if unnamed else lesson: _topics(rows) for lesson, rows in lessons}


def _name_file(problem: Problem, source: Path, path: Path) -> Problem:
    return problem if source == path else replace(problem, sheet=path.name)


def _topics(rows: pd.DataFrame) -> list[Topic]:
    return [Topic(*topic) for topic in zip(rows["start_seconds"].tolist(), rows["title"].tolist(), strict=True)]


def _remove_apostrophes(rows: pd.DataFrame) -> pd.DataFrame:
    """Remove the apostrophe that keeps a spreadsheet program from reading a CSV cell as a formula."""
    texts = [column for column in (*LESSON, "title") if column in rows]
    return rows.assign(**{column: rows[column].str.replace(FORMULA_ESCAPE, "", regex=True) for column in texts})


def _read_json(path: Path, text: str) -> dict[Lesson, list[Topic]]:
    try:
        lessons = TypeAdapter(list[_JsonLesson]).validate_python(parse_json(text, path.name))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Rejected(
            f"{path}, {place or 'the whole file'}: {first['msg']}. Use the form that `lectern chapters` writes: a list "
            "of lessons, each with its chapters, each with start_seconds and title."
        ) from None
    named = Counter((lesson.course_title, lesson.lesson_num) for lesson in lessons if lesson.chapters)
    if twice := next((name for name, count in named.items() if count > 1), None):
        raise Rejected(
            f"{path} has lesson {twice[1] or 'without a number'} of {twice[0] or 'no course'} more than once. Put its "
            "chapters into one lesson, or give each lesson its own course_title and lesson_num."
        )
    topics = {
        (lesson.course_title, lesson.lesson_num): [chapter.topic for chapter in lesson.chapters]
        for lesson in lessons
        if lesson.chapters
    }
    for each in topics.values():
        _check_order(each, path)
    return topics


def _check_order(topics: list[Topic], path: Path) -> None:
    for before, after in pairwise(topics):
        if after.seconds <= before.seconds:
            raise Rejected(
                f"{path}: the topic at {as_clock(after.seconds)} follows one at {as_clock(before.seconds)}. Put the "
                "topics in order of time, each with a different time. For several lessons, use a workbook or a CSV."
            )
