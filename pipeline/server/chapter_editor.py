"""What can be done with a talk on the page: read it, find its chapters, correct, compare and keep them."""

from __future__ import annotations

import concurrent.futures
import math
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.chapters.chaptering import cut, entitled, lacking
from pipeline.chapters.corrections import file_name, how_to_train, keep_corrections
from pipeline.chapters.edited_table import Row, from_rows, named
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.registry.fallback_title import Shown
from pipeline.server.current_version import Present
from pipeline.server.isolated_reading import read_apart
from pipeline.server.settings import PageSettings, ServeSettings
from pipeline.server.title_queue import Desk, Full
from pipeline.titles.other_models import titles_by
from pipeline.transcripts import chapter_files
from pipeline.transcripts.chapter import Chaptered
from pipeline.transcripts.transcript import Talk

PASTED = "Pasted talk"
_JSON = re.compile(r"\s*(\{|\[\s*[{\]])")  # and no line such as [0:00] or [Music]
_PART = 4  # texts asked for at once: the slowest of models writes their titles long before anyone's time is up
_LOOK = 0.2  # seconds between two looks at whether anyone still waits
_SHORTEST = 0.01  # minutes of a chapter
_SUFFIXES = {name: suffix for suffix, name in chapter_files.SUFFIXES.items()}

Progress = Callable[[int, int], object]
"""Told how many titles are written, and of how many."""

Wanted = Callable[[], bool]
"""Tells whether anyone still waits for what is worked on."""


class Failed(Rejected):
    """The encoder or the model is at fault, and nothing that was asked."""


class Late(TemporaryFailure):
    """The titles took longer to write than anyone is let wait."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Found:
    """A talk's chapters. `version` wrote the titles that were lacking."""

    chaptered: Chaptered
    version: str | None


class Editor:
    """Works for all who have the page open, by one desk, within `limits` and `page`.

    Args:
        folder: for uploads, downloads and pasted transcripts.
    """

    def __init__(self, desk: Desk, present: Present, limits: ServeSettings, page: PageSettings, folder: Path) -> None:
        self._desk = desk
        self._present = present
        self._limits = limits
        self._page = page
        self.folder = folder

    def read(self, path: Path) -> list[Talk]:
        """The talks of an uploaded file in which anything is said. The file is removed.

        Raises:
            Rejected: it holds none, or a longer one than we take.
        """
        try:
            if path.stat().st_size > self._limits.megabytes * 1_000_000:
                raise Rejected(
                    f"{path.name} has more than {self._limits.megabytes:g} MB. Give the transcript of one talk."
                )
            talks = [talk for talk in read_apart(path) if talk.lines]
        finally:
            path.unlink(missing_ok=True)
        for talk in talks:
            words = sum(len(line.text.split()) for line in talk.lines)
            if words > self._page.words:
                raise Rejected(
                    f"{talk.name} has {words:,} words, and {self._page.words:,} are taken. Split it in two, or let "
                    "`lectern chapters` do it."
                )
        return talks

    def read_pasted(self, text: str) -> Talk:
        """The talk of a pasted transcript.

        Raises:
            Rejected: it is none, or a longer one than we take.
        """
        suffix = ".json" if _JSON.match(text) else ".txt"
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = Path(folder) / f"{PASTED}{suffix}"
            path.write_text(text, encoding="utf-8", errors="replace")
            return self.read(path)[0]

    def chapters(
        self,
        talk: Talk,
        minutes: float | None = None,
        progress: Progress = lambda *_: None,
        *,
        until: float = math.inf,
        wanted: Wanted = lambda: True,
    ) -> Found:
        """Cut `talk` into chapters and title them. Topics that it has already are kept.

        Args:
            minutes: average length of a chapter; None or 0 uses the value in `params.yaml`.
            until: when to give up, by `time.monotonic`.
            wanted: whether anyone still waits for the chapters.

        Raises:
            Abandoned: nobody waits any more.
            Rejected: there would be too many.
            Failed: the encoder cannot be had, or the model failed.
            Late: it is later than `until`, or some of the titles took too long.
            TemporaryFailure: no version is loaded, or the server has too much to do.
        """
        if not wanted():
            raise Abandoned
        if minutes and minutes < _SHORTEST:
            raise Rejected(f"Chapters of {minutes:g} minutes are too short. Ask for {_SHORTEST:g} minutes or more.")
        settings = ChaptersSettings.read()
        settings = settings.model_copy(update={"minutes": minutes}) if minutes else settings
        many = len(talk.topics) or round(talk.end_seconds / 60 / settings.minutes)
        if many > self._page.chapters:
            raise Rejected(
                f"That would be {many:,} chapters, and {self._page.chapters:,} are taken. Ask for longer ones."
            )
        try:
            parts = cut(talk, settings)
        except (Rejected, UsageError) as error:
            raise Failed(str(error)) from None
        texts = lacking([parts])
        version, written = self._titles(texts, progress, until, wanted) if texts else (None, [])
        titles = {text: shown.title for text, shown in zip(texts, written, strict=True)}
        fallbacks = {text for text, shown in zip(texts, written, strict=True) if shown.fallback}
        return Found(entitled(parts, titles, fallbacks), version)

    def edited(self, talk: Talk, rows: Sequence[Row], course: str, lesson: str) -> Chaptered:
        """`talk`, as a person names it, in the chapters of their table.

        Raises:
            Rejected: a row is no chapter, or there are too many.
        """
        if len(rows) > self._page.chapters:
            raise Rejected(f"The table has {len(rows):,} rows, and {self._page.chapters:,} are taken. Take some away.")
        course, lesson = named(talk, course, lesson)
        return from_rows(replace(talk, course_title=course, lesson_num=lesson), rows)

    def file(self, talk: Chaptered, form: str, folder: Path) -> Path:
        """Write the chapters into `folder` as a file of the format `form`."""
        out = folder / f"{file_name(talk)}{_SUFFIXES[chapter_files.format_of(form, Path(f'.{form}'))]}"
        chapter_files.write_chapters([talk], out, form)
        return out

    def keep(self, talk: Chaptered) -> tuple[Path, str]:
        """Keeps the chapters as a workbook to train on; returns it and the command that does.

        Raises:
            Rejected: a workbook cannot hold them.
        """
        folder = self._page.corrections
        try:
            return keep_corrections(talk, folder), how_to_train(folder)
        except OSError as error:
            raise Rejected(f"{folder} cannot be written to ({error.strerror}). page.corrections names it.") from None

    def compare(self, talk: Chaptered, models: Sequence[str], *, wanted: Wanted = lambda: True) -> dict[str, list[str]]:
        """Let each model title each chapter. A title is empty where nothing is said or the model has none to give.

        Raises:
            Abandoned: nobody waits any more, by `wanted`, which is asked before each model.
            UsageError: there is no such model.
            Rejected: a version does not load.
        """
        spoken = [chapter.asked for chapter in talk.chapters if chapter.text]
        titles = {}
        for model in models:
            if not wanted():
                raise Abandoned
            written = iter(titles_by(model, spoken))
            titles[model] = [next(written) if chapter.text else "" for chapter in talk.chapters]
        return titles

    def _titles(
        self, texts: Sequence[str], progress: Progress, until: float, wanted: Wanted
    ) -> tuple[str, list[Shown]]:
        """Title `texts` by one version, in parts, so that a request for one title need not wait for a whole talk."""
        version, written, part = "", [], min(_PART, self._limits.batch)
        while len(written) < len(texts):
            progress(len(written), len(texts))
            now, titles = self._part(texts[len(written) : len(written) + part], until, wanted)
            if version and now != version:  # another one was promoted meanwhile
                written = []
            else:
                written += titles
            version = now
        return version, written

    def _part(self, texts: Sequence[str], until: float, wanted: Wanted) -> tuple[str, list[Shown]]:
        until = min(time.monotonic() + self._limits.seconds, until)
        if self._present.version is None:
            raise TemporaryFailure(self._present.problem or "The model is being loaded. Try again in a moment.")
        try:
            future = self._desk.submit(texts)
        except Full as full:
            raise TemporaryFailure(f"Too many are asking just now. Try again in {full.seconds} s.") from None
        try:
            self._wait(future, until, wanted)
            return future.result()
        except (Abandoned, Late):
            future.cancel()
            raise
        except concurrent.futures.CancelledError:
            raise TemporaryFailure("The server is ending. Try again once it is back.") from None
        except Exception as error:
            raise Failed(f"The model failed: {type(error).__name__}. The server's log says more.") from None

    def _wait(self, future: Future, until: float, wanted: Wanted) -> None:
        """Return once `future` is done.

        Raises:
            Abandoned: nobody waits for it any more.
            Late: it is not done in time.
        """
        while not future.done():
            left = until - time.monotonic()
            if left <= 0:
                raise Late(f"The titles were not written within {self._limits.seconds:g} s. Try again.")
            if not wanted():
                raise Abandoned
            concurrent.futures.wait([future], timeout=min(left, _LOOK))
