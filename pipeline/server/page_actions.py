"""The functions of the page's buttons: they take the values of fields, and return a message and new values."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.context import LocalContext

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords
from pipeline.registry.outages import translate_error
from pipeline.server.chapter_editor import ChapterEditor, ChaptersResult, ClientLeft
from pipeline.server.isolated_reading import prepare_reading
from pipeline.server.page_access import visitor_of
from pipeline.server.timeline import timeline_html
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
_NO_TITLE = "(no title)"
_PROGRESS = gr.Progress()
_log = logging.getLogger(__name__)

_Action = Callable[..., Any]
_Table = list[list[Any]]
"""The rows of the edited table."""


class _Talk(NamedTuple):
    """A transcript, and the name under which the page offers it."""

    name: str
    transcript: Transcript


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
    def read(self, files: Sequence[str]) -> tuple[Any, ...]:
        """Read uploaded files. Each becomes a talk, a workbook one for each lesson."""
        talks: list[_Talk] = []
        problems: list[str] = []
        for path in map(Path, dict.fromkeys(files)):
            try:
                transcripts = self._editor.read(path)
            except (Rejected, UsageError) as error:
                problems.append(str(error))
            else:
                talks += [_Talk(path.name if len(transcripts) == 1 else each.name, each) for each in transcripts]
        if not talks:
            raise Rejected(" ".join(problems))
        return " ".join([*problems, _describe_talks(talks)]), *_show_talks(talks)

    @_with_message(*[gr.skip()] * 6)
    def example(self) -> tuple[Any, ...]:
        """Read the example that comes with the page."""
        talks = [_Talk("Example: bread, stars and a garden", self._editor.read_example())]
        return "The example is read. Finding its chapters.", *_show_talks(talks)

    @_with_message(*[gr.skip()] * 10)
    def chapters(
        self,
        text: str,
        transcripts: list[Transcript],
        which: int | None,
        minutes: float | None,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple[Any, ...]:
        """Divide the pasted transcript, else the chosen talk, into chapters."""
        progress(0, desc="Finding where the topics change")
        transcript = self._chosen(text, transcripts, which or 0)
        result = self._editor.chapters(
            transcript,
            minutes,
            lambda written, total: progress((written, total), desc="Writing titles"),
            is_waiting=self._is_waiting(request),
        )
        found = result.lesson
        return (
            _describe_chapters(result),
            _table(found),
            found,
            transcript.course_title,
            transcript.lesson_num,
            self._describe_version(),
            timeline_html(found),
            gr.Column(visible=True),
            gr.Checkbox(value=False, visible=bool(found.keyphrases)),
            gr.Radio(visible=False),
            "",
        )

    def _chosen(self, text: str, transcripts: list[Transcript], index: int) -> Transcript:
        if text.strip():
            return self._editor.read_pasted(text)
        if not transcripts:
            raise UsageError("There is no transcript. Drop a file, paste a transcript, or try the example.")
        if index >= len(transcripts):
            raise UsageError("The file of this talk is no longer here. Upload it again.")
        return transcripts[index]

    def show(
        self, found: ChapteredTranscript | None, table: _Table, corrected: list[ChapteredTranscript]
    ) -> tuple[Any, ...]:
        """Draw the timeline for the edited table. A row that is not finished is no failure: it is only named.

        Args:
            corrected: the talks whose tables were edited, as `download_all` will write them.
        """
        try:
            edited = self._edited(found, table)
        except (Rejected, UsageError) as error:
            return str(error), gr.skip(), corrected
        return "", timeline_html(edited), _replace_talk(corrected, edited)

    @_with_message(gr.skip(), gr.skip())
    def suggest(self, found: ChapteredTranscript | None, table: _Table, chapter: float | None) -> tuple[Any, ...]:
        """Suggest other titles for a chapter, which is given by its number."""
        chapters = self._edited(found, table).chapters
        number = int(chapter or 1)
        if not 1 <= number <= len(chapters):
            raise UsageError(f"There is no chapter {number:,}. Choose a chapter in the timeline.")
        time = [row.time for row in _rows(table) if any(map(str.strip, row))][number - 1]
        label = f"Other titles for chapter {number}, {time}: choose one to use it"
        titles = self._editor.suggest(chapters[number - 1])
        return "", gr.Radio(titles, value=None, label=label, visible=True), time

    @_with_message(*[gr.skip()] * 3)
    def use_title(
        self,
        found: ChapteredTranscript | None,
        table: _Table,
        title: str | None,
        time: str,
        corrected: list[ChapteredTranscript],
    ) -> tuple[Any, ...]:
        """Put a suggested title into the table, at the chapter that starts at `time`."""
        rows = _rows(table)
        if title is None or time not in (row.time for row in rows):
            raise UsageError("The chapter has another time now. Ask for titles again.")
        new = [[row.time, title if row.time == time else row.title] for row in rows]
        edited = self._edited(found, new)
        return "", new, timeline_html(edited), _replace_talk(corrected, edited)

    @_with_message(None)
    def download(
        self,
        found: ChapteredTranscript | None,
        table: _Table,
        course: str,
        lesson: str,
        form: str | None,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Write the chapters of the table to a file for the visitor."""
        chapters, form = self._edited(found, table, course, lesson), _require_format(form)
        path = self._editor.file(chapters, form, self._files.new_folder(visitor_of(request.request)))
        remarks = chapter_files.remarks(chapters, form)
        return " ".join([f"{path.name}: {_count_chapters(chapters)}.", *remarks]), str(path)

    @_with_message(None)
    def download_all(
        self,
        found: ChapteredTranscript | None,
        table: _Table,
        course: str,
        lesson: str,
        transcripts: list[Transcript],
        corrected: list[ChapteredTranscript],
        minutes: float | None,
        form: str | None,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple[Any, ...]:
        """Write the chapters of all talks to a ZIP: corrected ones as they are, the others as they are found now."""
        shown, form = self._edited(found, table, course, lesson), _require_format(form)
        talks = []
        for number, transcript in enumerate(transcripts):
            progress((number, len(transcripts)), desc="Finding the chapters of all talks")
            if found and transcript.lines == found.transcript.lines:
                talks.append(shown)
            elif known := [talk for talk in corrected if talk.transcript.lines == transcript.lines]:
                talks += known
            else:
                talks.append(self._editor.chapters(transcript, minutes, is_waiting=self._is_waiting(request)).lesson)
        path = self._editor.archive(talks, form, self._files.new_folder(visitor_of(request.request)))
        return f"{path.name}: {len(talks):,} talks.", str(path)

    @_with_message("")
    def copy(
        self, found: ChapteredTranscript | None, table: _Table, course: str, lesson: str, form: str | None
    ) -> tuple[Any, ...]:
        """Return the chapters of the table as text, for the clipboard."""
        chapters, form = self._edited(found, table, course, lesson), _require_format(form)
        remarks = chapter_files.remarks(chapters, form)
        return " ".join([f"Copied {_count_chapters(chapters)}.", *remarks]), self._editor.text(chapters, form)

    @_with_message()
    def save(
        self,
        found: ChapteredTranscript | None,
        table: _Table,
        course: str,
        lesson: str,
        accept_keyphrases: bool,
    ) -> str:
        """Save the chapters of the table for training."""
        chapters = self._edited(found, table, course, lesson)
        path, command = self._editor.save(chapters, accept_keyphrases=accept_keyphrases)
        return (
            f"Saved as {path}. The model learns from it in the next training, and the page uses the new version once "
            f"it is promoted. In the project folder, run:\n{command}\nlectern run\nlectern promote"
        )

    @_with_message(gr.skip())
    def compare(
        self,
        found: ChapteredTranscript | None,
        table: _Table,
        course: str,
        lesson: str,
        models: Sequence[str],
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Show the titles of other models next to those of the table."""
        if not models:
            raise UsageError("No model is chosen. Tick the models to compare.")
        chapters = self._edited(found, table, course, lesson)
        titles = self._editor.compare(chapters, models, is_waiting=self._is_waiting(request))
        rows = [
            [*row, *(titles[model][n] or _NO_TITLE for model in models)] for n, row in enumerate(table_rows(chapters))
        ]
        columns = ["time", "in the table", *models]
        # Without fixed widths, Gradio makes the last of many columns too narrow for their headings.
        widths = [TIME_WIDTH, *[_TITLE_WIDTH] * (len(columns) - 1)]
        shown = gr.Dataframe(value=rows, headers=columns, column_widths=widths, visible=True)
        return f"The table below shows the titles of {', '.join(models)}.", shown

    def describe_models(self) -> tuple[Any, ...]:
        """Describe the served version, and list the models to compare with it."""
        prepare_reading()
        return self._describe_version(), gr.CheckboxGroup(choices=_list_models())

    def _edited(
        self, found: ChapteredTranscript | None, table: _Table, course: str = "", lesson: str = ""
    ) -> ChapteredTranscript:
        if found is None:
            raise UsageError("There are no chapters yet. Paste or upload a transcript, then click Find chapters.")
        return self._editor.edited(found, _rows(table), course, lesson)

    def _is_waiting(self, request: gr.Request) -> Callable[[], bool]:
        """Return a function that returns whether the visitor still waits for the answer to the current call."""
        streams = (request.session_hash, LocalContext.event_id.get(None))
        return self._streams.waiting_for(*filter(None, streams))

    def _describe_version(self) -> str:
        if self._watcher.version:
            return f"Titles are written by {self._watcher.version}."
        return self._watcher.problem or "The model is still loading. Reload the page in a moment."


def _list_models() -> list[str]:
    try:
        return list_models()
    except Exception as error:  # the rest of the page works without them
        _log.warning("The other models cannot be listed: %s", error)
        return []


def _table(lesson: ChapteredTranscript) -> _Table:
    return [[*row] for row in table_rows(lesson)]


def _rows(table: _Table) -> list[ChapterRow]:
    if any(len(row) != _COLUMNS for row in table):
        raise UsageError("The table must have the columns time and title. Click Find chapters for a new table.")
    return [ChapterRow(*("" if cell is None else str(cell) for cell in row)) for row in table]


def _replace_talk(corrected: Sequence[ChapteredTranscript], edited: ChapteredTranscript) -> list[ChapteredTranscript]:
    return [*(talk for talk in corrected if talk.transcript.lines != edited.transcript.lines), edited]


def _require_format(form: str | None) -> str:
    if form is None:
        raise UsageError("No format is chosen. Choose one above the download button.")
    return form


def _show_talks(talks: Sequence[_Talk]) -> tuple[Any, ...]:
    """Return the transcripts, the field that chooses one, empty fields for others, and the download of several."""
    choices = [
        f"{number}. {talk.name}, {youtube_time(talk.transcript.end_seconds)}"
        for number, talk in enumerate(talks, start=1)  # the number makes names different
    ]
    choice = gr.Dropdown(choices=choices, value=choices[0], visible=True)
    return [talk.transcript for talk in talks], choice, "", None, [], gr.Button(visible=len(talks) > 1)


def _describe_talks(talks: Sequence[_Talk]) -> str:
    lines = sum(len(talk.transcript.lines) for talk in talks)
    what, next_step = talks[0].name, "Click Find chapters."
    if len(talks) > 1:
        what, next_step = f"{len(talks):,} talks", "Choose one, then click Find chapters."
    notes = [note for talk in talks for note in talk.transcript.notes]
    return " ".join([f"{what}: {lines:,} lines read. {next_step}", *notes])


def _describe_chapters(result: ChaptersResult) -> str:
    titles = f"titled by version {result.version}" if result.version else "with the titles of the file"
    return " ".join([f"{_count_chapters(result.lesson)}, {titles}.", *result.lesson.remarks()])


def _count_chapters(lesson: ChapteredTranscript) -> str:
    return f"{len(lesson.chapters):,} chapter{'' if len(lesson.chapters) == 1 else 's'}"
