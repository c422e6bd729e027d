"""The functions of the page's buttons: they take the values of fields, and return a message and new values."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords
from pipeline.registry.outages import translate_error
from pipeline.server.chapter_editor import ChapterEditor, ChaptersResult, ClientLeft
from pipeline.server.isolated_reading import prepare_reading
from pipeline.server.page_access import visitor_of
from pipeline.server.version_watcher import VersionWatcher
from pipeline.server.visitors import AnswerStreams, VisitorFiles
from pipeline.titles.edited_table import ChapterRow, table_rows
from pipeline.titles.other_models import list_models
from pipeline.transcripts import chapter_files
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.timestamps import youtube_time
from pipeline.transcripts.transcript import Transcript

TIME_WIDTH, _TITLE_WIDTH = "90px", "240px"
_COLUMNS = 2  # time and title
_PROGRESS = gr.Progress()
_log = logging.getLogger(__name__)

_Action = Callable[..., Any]
_Table = list[list[Any]]
"""The rows of the edited table."""


def _with_message(*others: Any) -> Callable[[_Action], _Action]:
    """Decorate an action so that a failure becomes a message.

    Args:
        others: the action's outputs after the message, in case of a failure.
    """

    def decorate(action: _Action) -> _Action:
        @wraps(action)
        def with_message(*values: Any, **named: Any) -> Any:
            try:
                return action(*values, **named)
            except ClientLeft:
                return (gr.skip(), *others) if others else gr.skip()
            except (Rejected, UsageError, TemporaryFailure) as error:
                message = str(error)
            except Exception as error:
                _log.exception("the page failed")
                message = str(translate_error(error) or "This is a bug in Lectern. See the server's log.")
            message = hide_passwords(message)
            gr.Warning(html.escape(message))  # Gradio shows it as markup
            return (message, *others) if others else message

        return with_message

    return decorate


class PageActions:
    """The functions of the page's buttons. The names of their parameters are the argument names of the page's API."""

    def __init__(
        self, editor: ChapterEditor, watcher: VersionWatcher, files: VisitorFiles, streams: AnswerStreams
    ) -> None:
        self._editor = editor
        self._watcher = watcher
        self._files = files
        self._streams = streams

    @_with_message(*[gr.skip()] * 6)
    def read(self, path: str) -> tuple[Any, ...]:
        """Read an uploaded file."""
        transcripts = self._editor.read(Path(path))
        names = [each.name for each in transcripts]
        choice = gr.Dropdown(choices=names, value=names[0], visible=len(names) > 1)
        return (_describe_file(transcripts), transcripts, choice, *_lesson_name(transcripts[0]), "", None)

    def name_lesson(self, transcripts: list[Transcript], which: int | None) -> tuple[Any, ...]:
        """Show the name of the chosen lesson."""
        index = which or 0
        return _lesson_name(transcripts[index]) if index < len(transcripts) else (gr.skip(), gr.skip())

    @_with_message(*[gr.skip()] * 5)
    def chapters(
        self,
        text: str,
        transcripts: list[Transcript],
        which: int | None,
        minutes: float | None,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple[Any, ...]:
        """Divide the pasted transcript, else the chosen lesson of the file, into chapters."""
        transcript = self._chosen(text, transcripts, which or 0)
        result = self._editor.chapters(
            transcript,
            minutes,
            lambda written, total: progress((written, total), desc="titles"),
            is_waiting=self._is_waiting(request),
        )
        rows = [[*row] for row in table_rows(result.lesson)]
        return (_describe_chapters(result), rows, transcript, *_lesson_name(transcript), self._describe_version())

    def _chosen(self, text: str, transcripts: list[Transcript], index: int) -> Transcript:
        if text.strip():
            return self._editor.read_pasted(text)
        if not transcripts:
            raise UsageError("There is no transcript. Paste one, or upload a file.")
        if index >= len(transcripts):
            raise UsageError("The file of this lesson is no longer here. Upload it again.")
        return transcripts[index]

    @_with_message(None)
    def download(
        self,
        transcript: Transcript | None,
        table: _Table,
        course: str,
        lesson: str,
        form: str | None,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Write the chapters of the table to a file for the visitor."""
        chapters = self._edited(transcript, table, course, lesson)
        if form is None:
            raise UsageError("No format is chosen. Choose one next to the download button.")
        path = self._editor.file(chapters, form, self._files.new_folder(visitor_of(request.request)))
        remarks = chapter_files.remarks(chapters, form)
        return " ".join([f"{path.name}: {_count_chapters(chapters)}.", *remarks]), str(path)

    @_with_message()
    def save(self, transcript: Transcript | None, table: _Table, course: str, lesson: str) -> str:
        """Save the chapters of the table for training."""
        path, command = self._editor.save(self._edited(transcript, table, course, lesson))
        return f"Saved as {path}. To train on the workbook and all corrections, run: {command}"

    @_with_message(gr.skip())
    def compare(
        self,
        transcript: Transcript | None,
        table: _Table,
        course: str,
        lesson: str,
        models: Sequence[str],
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Show the titles of other models next to those of the table."""
        if not models:
            raise UsageError("No model is chosen. Tick the models to compare.")
        chapters = self._edited(transcript, table, course, lesson)
        titles = self._editor.compare(chapters, models, is_waiting=self._is_waiting(request))
        rows = [[*row, *(titles[model][n] for model in models)] for n, row in enumerate(table_rows(chapters))]
        columns = ["time", "in the table", *models]
        # Without fixed widths, Gradio makes the last of many columns too narrow for their headings.
        widths = [TIME_WIDTH, *[_TITLE_WIDTH] * (len(columns) - 1)]
        shown = gr.Dataframe(value=rows, headers=columns, column_widths=widths, visible=True)
        return f"The table below shows the titles of {len(models)} models.", shown

    def describe_models(self) -> tuple[Any, ...]:
        """Show the served version and the models to compare with, when the page opens."""
        prepare_reading()
        return self._describe_version(), gr.CheckboxGroup(choices=_list_models())

    def _edited(self, transcript: Transcript | None, table: _Table, course: str, lesson: str) -> ChapteredTranscript:
        if transcript is None:
            raise UsageError("There are no chapters yet. Paste or upload a transcript, then click Find chapters.")
        if any(len(row) != _COLUMNS for row in table):
            raise UsageError("The table must have the columns time and title. Click Find chapters for a new table.")
        rows = [ChapterRow(*("" if cell is None else str(cell) for cell in row)) for row in table]
        return self._editor.edited(transcript, rows, course, lesson)

    def _is_waiting(self, request: gr.Request) -> Callable[[], bool]:
        """Return a function that returns whether the visitor still waits for the answer to the current call."""
        streams = (request.session_hash, LocalContext.event_id.get(None))
        return self._streams.waiting_for(*filter(None, streams))

    def _describe_version(self) -> str:
        if self._watcher.version:
            return f"version {self._watcher.version}"
        return self._watcher.problem or "The model is still loading. Reload the page in a moment."


def _list_models() -> list[str]:
    try:
        return list_models()
    except Exception as error:  # the rest of the page works without them
        _log.warning("The other models cannot be listed: %s", error)
        return []


def _lesson_name(transcript: Transcript) -> tuple[str, str]:
    return transcript.course_title, transcript.lesson_num


def _describe_file(transcripts: Sequence[Transcript]) -> str:
    lines = sum(len(transcript.lines) for transcript in transcripts)
    if len(transcripts) > 1:
        what = f"{len(transcripts):,} lessons"
    else:
        what = f"{transcripts[0].course_title}, {youtube_time(transcripts[0].end_seconds)}"
    return f"{what}: {lines:,} lines read. Click Find chapters."


def _describe_chapters(result: ChaptersResult) -> str:
    titles = f"titled by version {result.version}" if result.version else "with the titles of the file"
    return " ".join([f"{_count_chapters(result.lesson)}, {titles}.", *result.lesson.remarks()])


def _count_chapters(lesson: ChapteredTranscript) -> str:
    return f"{len(lesson.chapters):,} chapter{'' if len(lesson.chapters) == 1 else 's'}"
