"""Divide and title many lessons, one after the other. After an interruption, finished lessons are not titled again."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.errors import UsageError
from pipeline.files import write_json
from pipeline.titles.batch_titling import RESUME_FOLDER
from pipeline.titles.served_version import ServedVersion
from pipeline.titles.title_chapters import chapters_with_titles, find_version
from pipeline.transcripts.chapter import Chapter, ChapteredTranscript
from pipeline.transcripts.transcript import Transcript

_log = logging.getLogger(__name__)


@dataclass
class TitledLessons:
    """Lessons with their chapters.

    failed: by lesson, the reason why it has no chapters.
    resume_files: a file for each lesson that was titled, from which an interrupted call resumes.
    """

    lessons: list[ChapteredTranscript] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    resume_files: list[Path] = field(default_factory=list)

    def discard_resume_files(self) -> None:
        """Remove the files for resuming. Call this once the chapters are saved."""
        for file in self.resume_files:
            file.unlink(missing_ok=True)


def title_lessons(
    transcripts: Sequence[Transcript], settings: ChaptersSettings, count: int | None = None
) -> TitledLessons:
    """Divide transcripts into chapters and title them. After an interruption, the same call resumes.

    Args:
        count: number of chapters of a transcript without topics; None computes it from `settings.minutes`.

    Raises:
        UsageError: all transcripts are too short for `count` chapters.
        Rejected: there is no version and no pretrained model, or one of them or the encoder cannot be loaded.
    """
    version = find_version(transcripts)
    result = TitledLessons()
    several = len(transcripts) > 1
    with tqdm(transcripts, desc="lessons", unit="lesson", disable=not (several and sys.stderr.isatty())) as bar:
        for number, transcript in enumerate(bar, start=1):
            file = _resume_file(transcript, settings, count, version)
            try:
                lesson = _read_finished(file, transcript) or _title_lesson(transcript, settings, count, version, file)
            except UsageError as error:
                result.failed[transcript.name] = str(error)
                continue
            result.lessons.append(lesson)
            result.resume_files.append(file)
            if several and bar.disable:
                _log.info("%s of %s: %s, %s chapters", number, len(transcripts), transcript.name, len(lesson.chapters))
    if not result.lessons:
        raise UsageError("\n".join(result.failed.values()))
    return result


def _title_lesson(
    transcript: Transcript, settings: ChaptersSettings, count: int | None, version: ServedVersion | None, file: Path
) -> ChapteredTranscript:
    (lesson,), batch = chapters_with_titles([transcript], settings, count, version)
    if batch:
        titled = {"chapters": [asdict(chapter) for chapter in lesson.chapters], "kept": lesson.kept}
        write_json(file, titled | {"added": lesson.added, "unnamed": lesson.unnamed, "keyphrases": lesson.keyphrases})
        batch.discard_resume_files()
    return lesson


def _resume_file(
    transcript: Transcript, settings: ChaptersSettings, count: int | None, version: ServedVersion | None
) -> Path:
    """Return the file of a finished lesson. Its name changes whenever its chapters may change."""
    parts = [asdict(transcript), settings.model_dump(), count, version and version.identity]
    return RESUME_FOLDER / f"lesson-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.json"


def _read_finished(file: Path, transcript: Transcript) -> ChapteredTranscript | None:
    try:
        finished = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    chapters = [Chapter(**chapter) for chapter in finished["chapters"]]
    unnamed, keyphrases = tuple(finished["unnamed"]), tuple(finished["keyphrases"])
    return ChapteredTranscript(transcript, chapters, finished["kept"], finished["added"], unnamed, keyphrases)
