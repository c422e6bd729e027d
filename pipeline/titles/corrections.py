"""Save chapters that a person has corrected as workbooks for training."""

from __future__ import annotations

import re
import shlex
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from filelock import FileLock

from pipeline.data.workbook import IngestSettings, ingest
from pipeline.data.workbook_schema import LESSON
from pipeline.errors import Rejected
from pipeline.files import make_folder
from pipeline.paths import STATE
from pipeline.titles.edited_table import table_rows
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.chapter_files import write_chapters

_LONGEST_NAME = 160  # bytes in UTF-8; a file system allows 255 with the time and the suffix


def save_corrections(lesson: ChapteredTranscript, folder: Path) -> Path:
    """Save chapters in `folder` as a workbook that passes `lectern check`. No other file is overwritten.

    The file's name is the lesson and the time, so that the newest correction of a lesson is sorted last.

    Returns:
        The path of the workbook.

    Raises:
        Rejected: a chapter has no title yet or only a keyphrase, a workbook cannot hold the chapters, or the folder has
            another transcript with the same lesson name. Nothing is written.
    """
    _check_titles(lesson)
    folder.mkdir(parents=True, exist_ok=True)
    make_folder(STATE)
    with FileLock(STATE / "corrections.lock"), tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
        name = lesson_file_name(lesson)
        path = _unused_path(folder, name)
        written = Path(aside) / path.name
        write_chapters([lesson], written, "xlsx")
        _check_same_transcript(ingest(written).lines, folder, name)
        written.replace(path)
    return path


def _check_titles(lesson: ChapteredTranscript) -> None:
    """Reject numbers and keyphrases in the place of titles: a model would learn them."""
    rows = [" ".join(row) for row in table_rows(lesson)]
    if untitled := [rows[number - 1] for number in lesson.unnamed]:
        raise Rejected(f"These chapters have no title yet: {', '.join(untitled)}. Write titles, or delete the rows.")
    if keyphrases := [rows[number - 1] for number in lesson.keyphrases]:
        raise Rejected(
            "These titles are only keyphrases of the text, and a model would learn to write such titles: "
            f"{', '.join(keyphrases)}. Write better titles, or confirm that these are good ones."
        )


def _check_same_transcript(lines: pd.DataFrame, folder: Path, name: str) -> None:
    """Reject another transcript of the same lesson: training would use only the later of the two."""
    course, lesson = lines[LESSON].iloc[0]
    for path in folder.glob(f"{name}.*.xlsx"):
        others = ingest(path).lines
        if (course, lesson) == (*others[LESSON].iloc[0],) and others["text"].tolist() != lines["text"].tolist():
            raise Rejected(
                f"{path} has another transcript of lesson {lesson} of {course}. Use another course or lesson name."
            )


def lesson_file_name(lesson: ChapteredTranscript) -> str:
    """Return the lesson's name as a file name without suffix: letters, digits and hyphens."""
    full_name = f"{lesson.transcript.course_title}-{lesson.transcript.lesson_num}"
    name = re.sub(r"[\W_]+", "-", full_name).strip("-")
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore").strip("-") or "talk"


def training_command(folder: Path) -> str:
    """Return the shell command that makes the pipeline's workbook and all corrections the new workbook."""
    return f"lectern use {shlex.quote(str(IngestSettings.read().workbook))} {shlex.quote(str(folder))}/*.xlsx"


def _unused_path(folder: Path, name: str) -> Path:
    moment = datetime.now(UTC)
    while (path := folder / f"{name}.{moment:%Y%m%dT%H%M%S}.xlsx").exists():
        moment += timedelta(seconds=1)
    return path
