"""The page: paste or drop a transcript, get its chapters, correct them, compare, take them away, keep them."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from gradio.context import LocalContext

from pipeline.chapters.edited_table import Row, as_rows
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords
from pipeline.registry.outages import translate_error
from pipeline.server.app import say_what_is_wrong
from pipeline.server.chapter_editor import Abandoned, Editor, Found
from pipeline.server.current_version import Present
from pipeline.server.isolated_reading import get_ready
from pipeline.server.page_access import PageDoor, file_routes, visitor_of
from pipeline.server.page_calls import PageCalls
from pipeline.server.security_headers import Seal
from pipeline.server.settings import PAGE, ServeSettings
from pipeline.server.visitors import VisitorFiles
from pipeline.server.waiting_visitors import Listeners
from pipeline.titles.other_models import other_models
from pipeline.transcripts import chapter_files
from pipeline.transcripts.chapter import Chaptered
from pipeline.transcripts.timestamps import as_stamp
from pipeline.transcripts.transcript import Talk

_FILES = [".vtt", ".srt", ".sbv", ".json", ".json3", ".txt", ".xlsx", ".xlsm"]
_FORM = 4096  # bytes around a file in the request that brings it
_SESSIONS = 100  # whose talks are kept in memory
_FORGET_FILES = (60, 600)  # seconds: how often, and how old a file is then
_FORGET_TALK = 3600  # seconds after its page was closed
_INTRODUCTION = """# Lectern
Paste or drop the transcript of a talk, and get its chapters. Correct them in the table, and take them away."""
_EXAMPLE = """0:00 hello and welcome, today we talk about bread
0:07 first we look at the flour ..."""
_CHAPTERS = ["time", "title"]
_TIME_WIDTH, _TITLE_WIDTH = "90px", "240px"
_FONT = ["system-ui", "sans-serif"]
_STYLE = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container main { min-width: 0 !important; width: 100%; }
#compared, #chapters { max-width: 100%; min-width: 0 !important; overflow-x: auto; }
#said textarea { font-weight: 600; }
"""
_CLICK_DOWNLOAD = "() => document.querySelector('#file')?.click()"
_FORMATS = [
    ("lines for YouTube (.txt)", "youtube"),
    ("WebVTT (.vtt)", "vtt"),
    ("Markdown (.md)", "md"),
    ("table (.csv)", "csv"),
    ("JSON (.json)", "json"),
    ("workbook (.xlsx)", "xlsx"),
]
_PROGRESS = gr.Progress()
_log = logging.getLogger(__name__)


def mount_page(app: FastAPI, editor: Editor, present: Present, limits: ServeSettings) -> Callable[[], None]:
    """Mount the page into `app` at `PAGE`. The result ends the connections of open pages, so that `app` can stop."""
    files, listeners = VisitorFiles(editor.folder), Listeners()
    page = build_page(_Acts(editor, present, files, listeners))
    page.queue(max_size=limits.waiting)
    page.state_session_capacity = _SESSIONS
    app.get("/", include_in_schema=False)(lambda: RedirectResponse(PAGE))
    app.add_middleware(Seal, path=PAGE)
    gr.mount_gradio_app(
        app,
        page,
        path=PAGE,
        footer_links=["api"],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=int(limits.megabytes * 1_000_000) - _FORM,
        theme=gr.themes.Default(font=_FONT, font_mono=_FONT),
        css=_STYLE,
    )
    # A mounted page counts as not launched, and Gradio then checks no path. The door does; this is a second lock.
    page.has_launched = True
    mounted = app.routes[-1].app
    mounted.add_middleware(PageDoor, calls=PageCalls(page, files), listeners=listeners)
    mounted.router.routes[:0] = file_routes(files, page.upload_file_set.add)
    mounted.add_exception_handler(RequestValidationError, say_what_is_wrong)
    return mounted.stop_event.set


def build_page(acts: _Acts) -> gr.Blocks:
    """Lay out the page and connect its buttons to `acts`. Titles and transcripts are shown as text, never as markup."""
    with gr.Blocks(title="Lectern", analytics_enabled=False, delete_cache=_FORGET_FILES) as page:
        talks = gr.State([], time_to_live=_FORGET_TALK)
        talk = gr.State(None, time_to_live=_FORGET_TALK)
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                text = gr.Textbox(label="Transcript, with times", lines=10, max_lines=16, placeholder=_EXAMPLE)
                file = gr.File(label="or a file", file_types=_FILES, height=140)
                lesson_of = gr.Dropdown(label="Lesson of the workbook", visible=False, interactive=True, type="index")
                minutes = gr.Number(
                    label="Minutes a chapter", info="in the mean; 0: as params.yaml has it", value=0, minimum=0
                )
                find = gr.Button("Chapters", variant="primary")
                served = gr.Textbox(label="Titles by", interactive=False, lines=1)
            with gr.Column(scale=3, min_width=280):
                said = gr.Textbox(label="What happened", interactive=False, lines=2, elem_id="said")
                with gr.Row():
                    course = gr.Textbox(label="Course", min_width=120)
                    lesson = gr.Textbox(label="Lesson", min_width=80)
                table = gr.Dataframe(
                    headers=_CHAPTERS,
                    datatype="str",
                    type="array",
                    label="Chapters: click a cell to correct it, a cell's ⋮ to add or remove a row",
                    interactive=True,
                    buttons=[],
                    column_widths=[_TIME_WIDTH, "auto"],
                    show_row_numbers=True,
                    wrap=True,
                    elem_id="chapters",
                )
                with gr.Row():
                    form = gr.Dropdown(
                        _FORMATS, value="youtube", show_label=False, container=False, interactive=True, min_width=240
                    )
                    get = gr.Button("Download", min_width=120)
                keep = gr.Button("Save as a workbook for the next training")
                file_made = gr.DownloadButton("file", visible="hidden", elem_id="file")
        with gr.Column(min_width=280):
            models = gr.CheckboxGroup(
                [], label="What would the other models say?", info="the registered versions, and what needs no training"
            )
            ask = gr.Button("Compare")
            compared = gr.Dataframe(
                datatype="str",
                type="array",
                interactive=False,
                wrap=True,
                label="Side by side",
                buttons=[],
                visible=False,
                elem_id="compared",
            )

        edited = [talk, table, course, lesson]
        file.upload(acts.read, [file], [said, talks, lesson_of, course, lesson, text, file], api_name="read")
        lesson_of.input(acts.name_lesson, [talks, lesson_of], [course, lesson], api_visibility="private")
        find.click(
            acts.chapters, [text, talks, lesson_of, minutes], [said, table, talk, course, lesson, served],
            api_name="chapters",
        )  # fmt: skip
        get.click(acts.download, [*edited, form], [said, file_made], api_name="download").then(
            None, None, None, js=_CLICK_DOWNLOAD, api_visibility="private"
        )
        keep.click(acts.keep, edited, [said], api_name="save")
        ask.click(acts.compare, [*edited, models], [said, compared], api_name="compare")
        page.load(acts.look_around, None, [served, models], api_name="models")
    return page


def _kindly(*others: Any) -> Callable[[Callable], Callable]:
    """Decorate an act so that a failure becomes a sentence: its first output says why, and its others are `others`."""

    def decorate(act: Callable) -> Callable:
        @wraps(act)
        def kind(*given: Any, **named: Any) -> Any:
            try:
                return act(*given, **named)
            except Abandoned:
                return (gr.skip(), *others) if others else gr.skip()
            except (Rejected, UsageError, TemporaryFailure) as error:
                why = str(error)
            except Exception as error:
                _log.exception("the page failed")
                why = str(
                    translate_error(error) or "This failed, and is a bug of Lectern's. The server's log says more."
                )
            why = hide_passwords(why)
            gr.Warning(html.escape(why))  # which would show markup
            return (why, *others) if others else why

        return kind

    return decorate


class _Acts:
    """The functions of the page's buttons: they take what fields hold, and return a message and what fields show."""

    def __init__(self, editor: Editor, present: Present, files: VisitorFiles, listeners: Listeners) -> None:
        self._editor = editor
        self._present = present
        self._files = files
        self._listeners = listeners

    @_kindly(*[gr.skip()] * 6)
    def read(self, path: str) -> tuple:
        talks = self._editor.read(Path(path))
        several = len(talks) > 1
        choice = gr.Dropdown(choices=[each.name for each in talks], value=talks[0].name, visible=several)
        return (_of(talks), talks, choice, *_name(talks[0]), "", None)

    def name_lesson(self, talks: list[Talk], which: int | None) -> tuple:
        return _name(talks[which or 0]) if (which or 0) < len(talks) else (gr.skip(), gr.skip())

    @_kindly(*[gr.skip()] * 5)
    def chapters(
        self,
        text: str,
        talks: list[Talk],
        which: int | None,
        minutes: float | None,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple:
        if not text.strip() and not talks:
            raise UsageError("There is no transcript. Paste one, or drop a file.")
        if not text.strip() and (which or 0) >= len(talks):
            raise UsageError("That lesson is of a file that is no longer here. Drop the file again.")
        talk = self._editor.read_pasted(text) if text.strip() else talks[which or 0]
        wanted = self._is_waited_for(request)
        found = self._editor.chapters(talk, minutes, lambda n, of: progress((n, of), desc="titles"), wanted=wanted)
        rows = [[*row] for row in as_rows(found.chaptered)]
        return (_what_was_found(found), rows, talk, *_name(talk), self._served())

    @_kindly(None)
    def download(
        self, talk: Talk | None, table: list, course: str, lesson: str, form: str | None, request: gr.Request
    ) -> tuple:
        chaptered = self._edited(talk, table, course, lesson)
        if form is None:
            raise UsageError("No format is chosen. Choose one beside Download.")
        path = self._editor.file(chaptered, form, self._files.new_folder(visitor_of(request.request)))
        said = [f"{path.name}: {_count(chaptered)}.", *chapter_files.remarks(chaptered, form)]
        return " ".join(said), str(path)

    @_kindly()
    def keep(self, talk: Talk | None, table: list, course: str, lesson: str) -> str:
        path, command = self._editor.keep(self._edited(talk, table, course, lesson))
        return f"Saved as {path}. To train on the lessons and all corrections: {command}"

    @_kindly(gr.skip())
    def compare(
        self, talk: Talk | None, table: list, course: str, lesson: str, models: Sequence[str], request: gr.Request
    ) -> tuple:
        if not models:
            raise UsageError("No model is chosen. Tick those that are to be compared.")
        chaptered = self._edited(talk, table, course, lesson)
        titles = self._editor.compare(chaptered, models, wanted=self._is_waited_for(request))
        yours = as_rows(chaptered)
        rows = [[*row, *(titles[model][n] for model in models)] for n, row in enumerate(yours)]
        columns = ["time", "in the table", *models]
        # Of their own accord the last of many would be so narrow that their heads stand upright.
        widths = [_TIME_WIDTH, *[_TITLE_WIDTH] * (len(columns) - 1)]
        shown = gr.Dataframe(value=rows, headers=columns, column_widths=widths, visible=True)
        return f"The titles of {len(models)} models stand beside those of the table.", shown

    def look_around(self) -> tuple:
        get_ready()
        return self._served(), gr.CheckboxGroup(choices=_models())

    def _edited(self, talk: Talk | None, table: list, course: str, lesson: str) -> Chaptered:
        if talk is None:
            raise UsageError("There is no talk yet. Paste or drop a transcript, and press Chapters.")
        if any(len(row) != len(_CHAPTERS) for row in table):
            raise UsageError("The table has other columns than time and title. Press Chapters for a new one.")
        rows = [Row(*("" if cell is None else str(cell) for cell in row)) for row in table]
        return self._editor.edited(talk, rows, course, lesson)

    def _is_waited_for(self, request: gr.Request) -> Callable[[], bool]:
        """Return what tells whether anybody still waits for the answer to the call that is being worked on."""
        streams = (request.session_hash, LocalContext.event_id.get(None))
        return self._listeners.waiting_for(*filter(None, streams))

    def _served(self) -> str:
        if self._present.version:
            return f"version {self._present.version}"
        return self._present.problem or "The model is being loaded. A moment."


def _models() -> list[str]:
    try:
        return other_models()
    except Exception as error:  # the page is there without them
        _log.warning("the other models are not known: %s", error)
        return []


def _name(talk: Talk) -> tuple[str, str]:
    return talk.course_title, talk.lesson_num


def _of(talks: Sequence[Talk]) -> str:
    lines = sum(len(talk.lines) for talk in talks)
    what = f"{len(talks):,} lessons" if len(talks) > 1 else f"{talks[0].course_title}, {as_stamp(talks[0].end_seconds)}"
    return f"{what}: {lines:,} lines are read. Press Chapters."


def _what_was_found(found: Found) -> str:
    by = f"titled by version {found.version}" if found.version else "with the titles that they had"
    return " ".join([f"{_count(found.chaptered)}, {by}.", *found.chaptered.remarks()])


def _count(talk: Chaptered) -> str:
    return f"{len(talk.chapters):,} chapter{'' if len(talk.chapters) == 1 else 's'}"
