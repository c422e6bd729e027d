"""Actions of the page and the HTTP API on a transcript: read it, write chapters, correct, compare and save them."""

from __future__ import annotations

import concurrent.futures
import hashlib
import math
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmentation import ChaptersSettings, chapter_count
from pipeline.data.word_count import count_words
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.registry.chapter_titles import add_titles, untitled_texts
from pipeline.registry.fallback_title import Shown
from pipeline.server.isolated_reading import read_isolated
from pipeline.server.settings import PageSettings, ServeSettings
from pipeline.server.title_queue import QueueFull, TitleQueue, WrittenTitles
from pipeline.server.version_watcher import VersionWatcher
from pipeline.titles.corrections import lesson_file_name, save_corrections, training_command
from pipeline.titles.edited_table import ChapterRow, chapters_from_table
from pipeline.titles.other_models import titles_by
from pipeline.transcripts import chapter_files
from pipeline.transcripts.chapter import Chapter, ChapteredTranscript
from pipeline.transcripts.lesson_names import rename_lesson
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.transcript import Transcript

EXAMPLE = Path(__file__).with_name("example_talk.vtt")
_PASTED_NAME = "Pasted talk"
_JSON = re.compile(r"\s*(\{|\[\s*[{\]])")  # but not a line such as [0:00] or [Music]
_TEXTS_PER_REQUEST = 4  # few enough for the slowest model to title within the time limit
_SECONDS_BETWEEN_CHECKS = 0.2  # of whether the client still waits
_SHORTEST_MINUTES = 0.01
_SUGGESTIONS = 5
_SUFFIXES = {name: suffix for suffix, name in chapter_files.SUFFIXES.items()}

Progress = Callable[[int, int], object]
"""Receives the number of titles written so far, and of all titles."""

IsWaiting = Callable[[], bool]
"""Returns whether the client still waits for the answer."""


class ModelFailed(Rejected):
    """The encoder or the model failed, not the request."""


class TimeLimitExceeded(TemporaryFailure):
    """Writing the titles took longer than the time limit."""


class ClientLeft(Exception):
    """The client no longer waits for the answer."""


@dataclass(frozen=True)
class ChaptersResult:
    """The chapters of a transcript. `version` wrote the missing titles; None if none were missing."""

    lesson: ChapteredTranscript
    version: str | None


class ChapterEditor:
    """Serves all visitors of the page and all clients of the API.

    Args:
        queue: the queue for titles.
        watcher: the loaded version.
        limits: limits on requests.
        page: limits on transcripts.
        folder: for uploads, downloads and pasted transcripts.
    """

    def __init__(
        self, queue: TitleQueue, watcher: VersionWatcher, limits: ServeSettings, page: PageSettings, folder: Path
    ) -> None:
        self._queue = queue
        self._watcher = watcher
        self._limits = limits
        self._page = page
        self.folder = folder

    def read(self, path: Path) -> list[Transcript]:
        """Read the transcripts of an uploaded file, and remove the file. Lessons without lines are left out.

        Raises:
            Rejected: the file is not a transcript, or one of its transcripts is too long.
        """
        try:
            if path.stat().st_size > self._limits.megabytes * 1_000_000:
                raise Rejected(
                    f"{path.name} is larger than {self._limits.megabytes:g} MB. Give the transcript of one lesson."
                )
            transcripts = [transcript for transcript in read_isolated(path) if transcript.lines]
        finally:
            path.unlink(missing_ok=True)
        for transcript in transcripts:
            words = sum(count_words(line.text) for line in transcript.lines)
            if words > self._page.words:
                raise Rejected(
                    f"{transcript.name} has {words:,} words. The limit is {self._page.words:,}. Split the transcript, "
                    "or use `lectern chapters`."
                )
        return transcripts

    def read_example(self) -> Transcript:
        """Read the example that comes with the page."""
        (transcript,) = read_transcripts(EXAMPLE)
        return replace(transcript, course_title="Example", lesson_num="1")

    def read_pasted(self, text: str) -> Transcript:
        """Read a pasted transcript. Its lesson name depends on its text, so that other texts have other names.

        Raises:
            Rejected: the text is not a transcript, or is too long.
        """
        try:
            return self._read_pasted(text, ".txt")
        except Rejected:
            if not _JSON.match(text):
                raise
            return self._read_pasted(text, ".json")  # whose message says what is wrong with the JSON

    def _read_pasted(self, text: str, suffix: str) -> Transcript:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = Path(folder) / f"{_PASTED_NAME}{suffix}"
            path.write_text(text, encoding="utf-8", errors="replace")
            transcript = self.read(path)[0]
        digest = hashlib.sha256(text.strip().encode(errors="replace")).hexdigest()
        return replace(transcript, lesson_num=f"#{digest[:6]}")

    def chapters(
        self,
        transcript: Transcript,
        minutes: float | None = None,
        progress: Progress = lambda *_: None,
        *,
        until: float = math.inf,
        is_waiting: IsWaiting = lambda: True,
    ) -> ChaptersResult:
        """Divide a transcript into chapters and title them. Known topics are kept.

        Args:
            minutes: average length of a chapter; None or 0 uses the value in `params.yaml`.
            until: when to give up, on the clock of `time.monotonic`.
            is_waiting: stops the work if the client has left.

        Raises:
            ClientLeft: the client no longer waits.
            Rejected: there would be too many chapters.
            ModelFailed: the encoder cannot be loaded, or the model failed.
            TimeLimitExceeded: it is later than `until`, or some titles took too long.
            TemporaryFailure: no version is loaded, or the queue is full.
        """
        if not is_waiting():
            raise ClientLeft
        if minutes and minutes < _SHORTEST_MINUTES:
            raise Rejected(
                f"Chapters of {minutes:g} minutes are too short. Enter {_SHORTEST_MINUTES:g} minutes or more."
            )
        settings = ChaptersSettings.read()
        settings = settings.model_copy(update={"minutes": minutes}) if minutes else settings
        segmenter = self._watcher.segmenter
        count = len(transcript.topics) or chapter_count(transcript, settings, segmenter)
        if count > self._page.chapters:
            raise Rejected(
                f"That would be {count:,} chapters. The limit is {self._page.chapters:,}. Enter more minutes per "
                "chapter."
            )
        try:
            lesson = divide_transcript(transcript, settings, segmenter=segmenter)
        except (Rejected, UsageError) as error:
            raise ModelFailed(str(error)) from None
        texts = untitled_texts([lesson])
        if not texts:
            return ChaptersResult(add_titles(lesson, {}), None)
        version, written = self._write_titles(texts, progress, until, is_waiting)
        return ChaptersResult(add_titles(lesson, dict(zip(texts, written, strict=True)), merge=True), version)

    def edited(
        self, found: ChapteredTranscript, rows: Sequence[ChapterRow], course: str, lesson: str
    ) -> ChapteredTranscript:
        """Divide a transcript into the chapters of an edited table, under the entered names.

        Args:
            found: the chapters that the table first showed.

        Raises:
            Rejected: a row is not a chapter, or there are too many rows.
        """
        most = max(self._page.chapters, len(found.chapters))
        if len(rows) > most:
            raise Rejected(f"The table has {len(rows):,} rows. The limit is {most:,}. Delete some.")
        renamed = replace(found, transcript=rename_lesson(found.transcript, course, lesson))
        return chapters_from_table(renamed, rows)

    def file(self, lesson: ChapteredTranscript, form: str, folder: Path) -> Path:
        """Write the chapters into `folder` as a file of the format `form`."""
        name = chapter_files.format_of(form, Path(f".{form}"))
        out = folder / f"{lesson_file_name(lesson)}{_SUFFIXES[name]}"
        chapter_files.write_chapters([lesson], out, name)
        return out

    def archive(self, talks: Sequence[ChapteredTranscript], form: str, folder: Path) -> Path:
        """Write the chapters of several talks into `folder` as a ZIP of files of the format `form`."""
        out, names = folder / "chapters.zip", set[str]()
        with ZipFile(out, "w", ZIP_DEFLATED) as archive, tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            for talk in talks:
                file = self.file(talk, form, Path(scratch))
                free = (f"{file.stem}{suffix}{file.suffix}" for suffix in chain([""], map("-{}".format, count(2))))
                name = next(name for name in free if name not in names)
                names.add(name)
                archive.write(file, name)
                file.unlink()
        return out

    def text(self, lesson: ChapteredTranscript, form: str) -> str:
        """Return the chapters as text of the format `form`.

        Raises:
            UsageError: the format is not text.
        """
        if form not in chapter_files.TEXTS:
            raise UsageError("A workbook cannot be copied as text. Download it, or choose another format.")
        return chapter_files.TEXTS[form]([lesson])

    def save(self, lesson: ChapteredTranscript, *, accept_keyphrases: bool = False) -> tuple[Path, str]:
        """Save the chapters as a workbook for training.

        Args:
            accept_keyphrases: whether a person has accepted the keyphrases as titles.

        Returns:
            The workbook, and the command that adds it to the training data.

        Raises:
            Rejected: a title is missing or a keyphrase, a workbook cannot hold the chapters, or the folder cannot be
                written.
        """
        folder = self._page.corrections
        lesson = replace(lesson, keyphrases=()) if accept_keyphrases else lesson
        try:
            return save_corrections(lesson, folder), training_command(folder)
        except OSError as error:
            raise Rejected(
                f"Cannot write to {folder} ({error.strerror}). Set another folder in params.yaml, page.corrections."
            ) from None

    def suggest(self, chapter: Chapter) -> list[str]:
        """Write other titles for a chapter, best first.

        Raises:
            Rejected: the chapter has no words, or the model writes no other title.
            TemporaryFailure: no version is loaded.
        """
        if not chapter.text:
            raise Rejected("Nothing is said in this chapter. Choose another chapter.")
        written = self._watcher.suggest_titles(chapter.model_input, _SUGGESTIONS)
        titles = [title for title in dict.fromkeys(written) if title != chapter.title]
        if not titles:
            raise Rejected("The model has no other title for this chapter. Write one in the table.")
        return titles

    def compare(
        self, lesson: ChapteredTranscript, models: Sequence[str], *, is_waiting: IsWaiting = lambda: True
    ) -> dict[str, list[str]]:
        """Let each model title each chapter. A title is empty if the chapter has no words or the model has no title.

        Args:
            is_waiting: stops before the next model if the client has left.

        Raises:
            ClientLeft: the client no longer waits.
            UsageError: a model does not exist.
            Rejected: a version cannot be loaded.
        """
        texts = [chapter.model_input for chapter in lesson.chapters if chapter.text]
        titles = {}
        for model in models:
            if not is_waiting():
                raise ClientLeft
            written = iter(titles_by(model, texts))
            titles[model] = [next(written) if chapter.text else "" for chapter in lesson.chapters]
        return titles

    def _write_titles(
        self, texts: Sequence[str], progress: Progress, until: float, is_waiting: IsWaiting
    ) -> WrittenTitles:
        """Title all texts by one version, in small requests, so that other clients wait only for a part of them."""
        version, written = "", list[Shown]()
        size = min(_TEXTS_PER_REQUEST, self._limits.batch)
        while len(written) < len(texts):
            progress(len(written), len(texts))
            part = self._request_titles(texts[len(written) : len(written) + size], until, is_waiting)
            if version and part.version != version:  # the served version has changed: start over
                written = []
            else:
                written += part.titles
            version = part.version
        return WrittenTitles(version, written)

    def _request_titles(self, texts: Sequence[str], until: float, is_waiting: IsWaiting) -> WrittenTitles:
        until = min(time.monotonic() + self._limits.seconds, until)
        if self._watcher.version is None:
            raise TemporaryFailure(self._watcher.problem or "The model is still loading. Try again in a moment.")
        try:
            future = self._queue.submit(texts)
        except QueueFull as full:
            raise TemporaryFailure(f"The server is busy. Try again in {full.seconds} s.") from None
        try:
            self._wait(future, until, is_waiting)
            return future.result()
        except (ClientLeft, TimeLimitExceeded):
            future.cancel()
            raise
        except concurrent.futures.CancelledError:
            raise TemporaryFailure("The server is stopping. Try again later.") from None
        except Exception as error:
            raise ModelFailed(f"The model failed ({type(error).__name__}). See the server's log.") from None

    def _wait(self, future: Future[WrittenTitles], until: float, is_waiting: IsWaiting) -> None:
        """Return once `future` is done.

        Raises:
            ClientLeft: the client no longer waits.
            TimeLimitExceeded: the future is not done in time.
        """
        while not future.done():
            left = until - time.monotonic()
            if left <= 0:
                raise TimeLimitExceeded(f"The titles were not ready within {self._limits.seconds:g} s. Try again.")
            if not is_waiting():
                raise ClientLeft
            concurrent.futures.wait([future], timeout=min(left, _SECONDS_BETWEEN_CHECKS))
