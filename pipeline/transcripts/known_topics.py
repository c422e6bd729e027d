"""Topics that somebody has given already: as a workbook, CSV, WebVTT or JSON, or as lines such as `0:00 Title`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pipeline.data.cell_values import FORMULA_ESCAPE, MAX_SECONDS, as_clock, replace_control_characters
from pipeline.data.fallback_titles import is_fallback, without_fallback_titles
from pipeline.data.lesson_checks import check_lessons
from pipeline.data.problems import Problem, WorkbookRejected, errors
from pipeline.data.sheet_parsing import parse_sheet
from pipeline.data.tables import is_workbook, open_tables
from pipeline.data.workbook_schema import COLUMN_NAMES, FALLBACK, LESSON, TOPICS
from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.captions import read_cues
from pipeline.transcripts.chapter_files import from_markdown
from pipeline.transcripts.reading import decoded
from pipeline.transcripts.timed_json import parse_json
from pipeline.transcripts.timed_text import stamped
from pipeline.transcripts.transcript import Talk, Topic

Lesson = tuple[str, str]
_COLUMNS = {TOPICS: tuple(COLUMN_NAMES[TOPICS])}


class _Chapter(BaseModel):
    start_seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)]
    title: str = ""
    fallback: str | bool = ""  # HTTP says no more than that it is one

    @property
    def topic(self) -> Topic:
        title = " ".join(replace_control_characters(self.title).split())
        return Topic(self.start_seconds, "" if is_fallback(title, str(self.fallback)) else title)


class _Lesson(BaseModel):
    course_title: str = ""
    lesson_num: str = ""
    chapters: list[_Chapter]


def with_topics(talks: Sequence[Talk], path: Path) -> list[Talk]:
    """`talks`, each with the topics that the file at `path` has for it, instead of its own. The topics of one lesson go
    to the one talk; those of several to the lessons of their names.

    Raises:
        UsageError: there is nothing at `path`.
        Rejected: it cannot be read, or holds topics of a lesson that is not among `talks`.
    """
    known = read_topics(path)
    if len(talks) == len(known) == 1:
        return [replace(talks[0], topics=next(iter(known.values())))]
    strangers = [lesson for lesson in known if lesson not in {(talk.course_title, talk.lesson_num) for talk in talks}]
    if strangers:
        course, number = strangers[0]
        whose = f"has topics of lesson {number} of {course}, which is not" if course else "does not say which it is of"
        raise Rejected(
            f"{path} {whose} among the {len(talks):,} lesson(s) to be given chapters. Name course and lesson as they "
            "are named there, in a workbook or a CSV, or take what is of none away."
        )
    return [replace(talk, topics=known.get((talk.course_title, talk.lesson_num), talk.topics)) for talk in talks]


def read_topics(path: Path) -> dict[Lesson, list[Topic]]:
    """The topics of each lesson, in the order of time. A file that names no lesson is of one, whatever its name. Titles
    that are marked as standing in for one do not count.

    Raises:
        UsageError: there is nothing at `path`.
        Rejected: what is there holds no topics, or cannot be read; the message names file and line.
    """
    if is_workbook(path):
        return _of_tables(path, path)
    if not path.is_file():
        raise UsageError(f"--topics {path}: there is no such file. Give a workbook, a CSV or lines such as 0:00 Title.")
    if path.suffix.lower() == ".csv":
        return _of_csv(path)
    text = decoded(path)
    if path.suffix.lower() == ".json":
        return _of_json(path, text)
    if text.startswith("WEBVTT"):
        topics = [Topic(cue.seconds, cue.text) for cue in read_cues(text, path.name, rolls=False)]
    else:
        if path.suffix.lower() == ".md":
            text = from_markdown(text)
        topics = [Topic(each.seconds, each.beside or "".join(each.below[:1])) for each in stamped(text, path.name)]
    if not topics:
        raise Rejected(f"{path} holds no topics. Write one a line, as in 0:00 Title.")
    return {("", ""): _rising(topics, path)}


def _of_csv(path: Path) -> dict[Lesson, list[Topic]]:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(path, Path(folder) / f"{TOPICS}.csv")
        return _of_tables(Path(folder), path)


def _of_tables(tables_at: Path, path: Path) -> dict[Lesson, list[Topic]]:
    """The topics of the workbook or folder `tables_at`, whose user knows it as `path`. A table may name no lessons."""
    tables, problems = open_tables(tables_at, _COLUMNS, (FALLBACK,))
    if TOPICS in tables:
        sheet, found = parse_sheet(tables[TOPICS], COLUMN_NAMES[TOPICS])
        problems += found
        if tables_at != path:
            sheet = replace(sheet, rows=_without_apostrophes(sheet.rows))
        if nameless := not {*LESSON} & {*sheet.rows}:
            sheet = replace(sheet, rows=sheet.rows.assign(course_title=path.stem, lesson_num="1"))
            problems = [problem for problem in problems if problem.column not in LESSON]
        if {*LESSON, sheet.time} <= {*sheet.rows}:
            problems += check_lessons(sheet, None)
    problems = [_placed(problem, tables_at, path) for problem in problems if problem.kind != "empty title"]
    if errors(problems):
        raise WorkbookRejected(path, problems)
    rows = without_fallback_titles(sheet.rows, tables_at)
    lessons = rows.sort_values("start_seconds").groupby(LESSON, sort=False)
    return {("", "") if nameless else lesson: _topics(rows) for lesson, rows in lessons}


def _placed(problem: Problem, tables_at: Path, path: Path) -> Problem:
    return problem if tables_at == path else replace(problem, sheet=path.name)


def _topics(rows: pd.DataFrame) -> list[Topic]:
    return [Topic(*topic) for topic in zip(rows["start_seconds"].tolist(), rows["title"].tolist(), strict=True)]


def _without_apostrophes(rows: pd.DataFrame) -> pd.DataFrame:
    """An apostrophe keeps a spreadsheet from taking a cell of a CSV for a formula."""
    texts = [column for column in (*LESSON, "title") if column in rows]
    return rows.assign(**{column: rows[column].str.replace(FORMULA_ESCAPE, "", regex=True) for column in texts})


def _of_json(path: Path, text: str) -> dict[Lesson, list[Topic]]:
    try:
        lessons = TypeAdapter(list[_Lesson]).validate_python(parse_json(text, path.name))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Rejected(
            f"{path}, {place or 'as a whole'}: {first['msg']}. It must be as `lectern chapters` writes it: a list of "
            "lessons, each with its chapters, each with start_seconds and title."
        ) from None
    return {
        (lesson.course_title, lesson.lesson_num): _rising([chapter.topic for chapter in lesson.chapters], path)
        for lesson in lessons
        if lesson.chapters
    }


def _rising(topics: list[Topic], path: Path) -> list[Topic]:
    for before, after in pairwise(topics):
        if after.seconds <= before.seconds:
            raise Rejected(
                f"{path}: the topic at {as_clock(after.seconds)} follows one at {as_clock(before.seconds)}. Put them "
                "in order, each with a time of its own. Topics of several talks go into a workbook or a CSV."
            )
    return topics
