"""Chapters that a person has corrected, kept as workbooks to train on."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from filelock import FileLock

from pipeline.chapters.edited_table import as_rows
from pipeline.data.workbook import IngestSettings, ingest
from pipeline.data.workbook_schema import LESSON
from pipeline.errors import Rejected
from pipeline.files import make_folder
from pipeline.paths import STATE
from pipeline.transcripts.chapter import Chaptered
from pipeline.transcripts.chapter_files import write_chapters

_LONGEST_NAME = 80


def keep_corrections(talk: Chaptered, folder: Path) -> Path:
    """Writes `talk` into `folder` as a workbook that `lectern check` accepts, and never over another one.

    Its name is the lesson's and the time, so that of two corrections of a lesson the newer comes later.

    Raises:
        Rejected: a chapter has a number for a title, a workbook cannot hold it, or another talk is kept there as the
            same lesson; nothing is written.
    """
    _refuse_numbers(talk)
    folder.mkdir(parents=True, exist_ok=True)
    make_folder(STATE)
    with FileLock(STATE / "corrections.lock"), tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
        name = file_name(talk)
        path = _free_name(folder, name)
        written = Path(aside) / path.name
        write_chapters([talk], written, "xlsx")
        _refuse_another_talk(ingest(written).lines, folder, name)
        written.replace(path)
    return path


def _refuse_numbers(talk: Chaptered) -> None:
    """A model would learn them as titles."""
    rows = as_rows(talk)
    if numbers := [" ".join(rows[number - 1]) for number in talk.unnamed]:
        raise Rejected(f"No title was written yet for {', '.join(numbers)}. Write it, or take the row away.")


def _refuse_another_talk(lines: pd.DataFrame, folder: Path, name: str) -> None:
    """Of two talks that are one lesson, training would take the later alone."""
    course, lesson = lines[LESSON].iloc[0]
    for path in folder.glob(f"{name}.*.xlsx"):
        others = ingest(path).lines
        if (course, lesson) == (*others[LESSON].iloc[0],) and others["text"].tolist() != lines["text"].tolist():
            raise Rejected(
                f"{path} keeps another talk as lesson {lesson} of {course}. Give this one another course or lesson."
            )


def file_name(talk: Chaptered) -> str:
    """The lesson as a file's name, without a suffix: letters, digits and hyphens."""
    name = re.sub(r"[\W_]+", "-", f"{talk.talk.course_title}-{talk.talk.lesson_num}").strip("-")
    return name[:_LONGEST_NAME].strip("-") or "talk"


def how_to_train(folder: Path) -> str:
    """The command that trains on the pipeline's workbook and all corrections."""
    return f"lectern use {IngestSettings.read().workbook} {folder}/*.xlsx"


def _free_name(folder: Path, name: str) -> Path:
    moment = datetime.now(UTC)
    while (path := folder / f"{name}.{moment:%Y%m%dT%H%M%S}.xlsx").exists():
        moment += timedelta(seconds=1)
    return path
