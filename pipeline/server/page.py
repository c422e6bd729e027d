"""The web page: give a transcript, get its chapters, correct, compare, download and save them.

This module lays out the page and mounts it into the server. page_actions.py has the functions of its buttons.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gradio as gr
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.routing import Mount

from pipeline.server.chapter_editor import ChapterEditor
from pipeline.server.page_access import PageAccess, SecurityHeaders, file_routes
from pipeline.server.page_actions import TIME_WIDTH, PageActions
from pipeline.server.page_calls import PageCalls
from pipeline.server.settings import PAGE_PATH, ServeSettings
from pipeline.server.titles_api import describe_invalid_request
from pipeline.server.version_watcher import VersionWatcher
from pipeline.server.visitors import AnswerStreams, VisitorFiles
from pipeline.transcripts.course_folder import TRANSCRIPTS

_FILE_TYPES = [*TRANSCRIPTS, ".xlsx", ".xlsm"]
_FORM_BYTES = 4096  # of an upload, around its file
_MOST_SESSIONS = 100  # open pages whose transcripts are kept in memory
_FILE_CLEANUP = (60, 600)  # seconds between two clean-ups, and age of the files that they remove
_TRANSCRIPT_LIFETIME = 3600  # seconds that a transcript is kept after the visitor has closed the page
_FONT = ["system-ui", "sans-serif"]
_INTRODUCTION = """<h1>Lectern</h1>
<p>Turn the transcript of a lecture into chapters with titles.</p>
<ol>
<li><b>Give a transcript:</b> drop caption files, or paste text with times.</li>
<li><b>Check the chapters:</b> compare each with its words, and correct times and titles.</li>
<li><b>Use them:</b> copy or download the chapters, or save them so that the model learns from you.</li>
</ol>"""
_EMPTY = "There is no transcript yet. Drop a file, paste a transcript, or try the example."
_PLACEHOLDER = """0:00 hello and welcome, today we talk about bread
0:07 first we look at the flour ..."""
# Gradio expands a template twice. Only an expression like this one shows text that contains ${...} as text.
_MESSAGE = """<p role="status" class="message">${(value ?? "").replace(/&/g, "&amp;").replace(/</g, "&lt;")}</p>"""
_FORMATS = [
    ("YouTube description (.txt)", "youtube"),
    ("WebVTT (.vtt)", "vtt"),
    ("Markdown (.md)", "md"),
    ("Table (.csv)", "csv"),
    ("JSON (.json)", "json"),
    ("Workbook (.xlsx)", "xlsx"),
    ("ffmpeg metadata (.ffmetadata)", "ffmetadata"),
    ("Podlove chapters (.psc)", "podlove"),
    ("Cue sheet (.cue)", "cue"),
]


def mount_page(
    app: FastAPI, editor: ChapterEditor, watcher: VersionWatcher, limits: ServeSettings
) -> Callable[[], None]:
    """Mount the page into `app` at `PAGE_PATH`.

    Returns:
        A function that closes the connections of open pages, so that `app` can stop.
    """
    files, streams = VisitorFiles(editor.folder), AnswerStreams()
    page = build_page(PageActions(editor, watcher, files, streams))
    page.queue(max_size=limits.waiting)
    page.state_session_capacity = _MOST_SESSIONS
    app.get("/", include_in_schema=False)(lambda: RedirectResponse(PAGE_PATH))
    app.add_middleware(SecurityHeaders, path=PAGE_PATH)
    gr.mount_gradio_app(
        app,
        page,
        path=PAGE_PATH,
        footer_links=["api"],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=int(limits.megabytes * 1_000_000) - _FORM_BYTES,
        theme=_theme(),
        css=_read("page.css"),
        js=_read("page.js"),
    )
    # Gradio checks file paths only if the page counts as launched. This adds to the checks of PageAccess.
    page.has_launched = True
    mounted: Any = cast(Mount, app.routes[-1]).app
    mounted.add_middleware(PageAccess, calls=PageCalls(page, files), streams=streams)
    mounted.router.routes[:0] = file_routes(files, page.upload_file_set.add)
    mounted.add_exception_handler(RequestValidationError, describe_invalid_request)
    return mounted.stop_event.set


class _Source:
    """The fields for a transcript, laid out in the current block."""

    def __init__(self) -> None:
        self.transcripts = gr.State([], time_to_live=_TRANSCRIPT_LIFETIME)
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=280):
                gr.HTML(_INTRODUCTION, elem_id="introduction")
            with gr.Column(scale=1, min_width=200):
                self.example = gr.Button("Try an example")
        with gr.Row(equal_height=True):
            self.file = gr.File(
                label="Transcripts or workbooks",
                file_count="multiple",
                file_types=_FILE_TYPES,
                height=190,
                min_width=280,
            )
            self.text = gr.Textbox(
                label="Or paste a transcript with times", lines=6, max_lines=6, placeholder=_PLACEHOLDER, min_width=280
            )
        with gr.Row(equal_height=True):
            self.choice = gr.Dropdown(
                label="Talk", visible=False, interactive=True, type="index", scale=2, min_width=240, filterable=False
            )
            self.minutes = gr.Number(
                label="Average minutes per chapter",
                info="0 chooses the usual length",
                value=0,
                minimum=0,
                min_width=240,
            )
        self.find = gr.Button("Find chapters", variant="primary", size="lg")
        self.status = _message("status", _EMPTY)
        self.served = _message("served")


class _Result:
    """The chapters, their words, and what to do with them, laid out in the current block."""

    def __init__(self) -> None:
        self.found = gr.State(None, time_to_live=_TRANSCRIPT_LIFETIME)
        self.suggested_for = gr.State("")
        self.corrected = gr.State([], time_to_live=_TRANSCRIPT_LIFETIME)
        with gr.Column(visible=False, elem_id="result") as self.whole:
            gr.HTML('<h2 tabindex="-1">Chapters</h2>')
            with gr.Row():
                with gr.Column(scale=3, min_width=300):
                    self._lay_out_table()
                with gr.Column(scale=2, min_width=300, elem_id="words"):
                    self._lay_out_words()
            self._lay_out_uses()
            with gr.Accordion("Compare with the titles of other models", open=False):
                self._lay_out_comparison()

    def _lay_out_table(self) -> None:
        self.table = gr.Dataframe(
            headers=["time", "title"],
            datatype="str",
            type="array",
            label="Double-click or double-tap a cell to correct it; ⋮ adds or deletes a row",
            interactive=True,
            buttons=[],
            column_widths=[TIME_WIDTH, "auto"],
            wrap=True,
            max_height=640,
            elem_id="chapters",
        )

    def _lay_out_words(self) -> None:
        self.timeline = gr.HTML(elem_id="timeline")
        self.suggest = gr.Button("Suggest other titles for this chapter", size="md")
        self.titles = gr.Radio([], visible=False)
        self.chapter = gr.Number(visible=False)  # page.js fills in the chosen chapter

    def _lay_out_uses(self) -> None:
        with gr.Row(equal_height=True):
            self.course = gr.Textbox(label="Course", min_width=140)
            self.lesson = gr.Textbox(label="Lesson", min_width=100)
            self.form = gr.Dropdown(_FORMATS, value="youtube", label="Format", interactive=True, min_width=240)
        with gr.Row():
            self.copy = gr.Button("Copy", min_width=120)
            self.download = gr.Button("Download", min_width=120)
            self.download_all = gr.Button("Download all talks", min_width=160, visible=False)
            self.save = gr.Button("Save for training", min_width=120)
        self.confirmed = gr.Checkbox(label="Save the keyphrases too: they are good titles", visible=False)
        self.outcome = _message("outcome")
        self.file_made = gr.DownloadButton("file", visible="hidden", elem_id="file")
        self.copied = gr.Textbox(visible="hidden")

    def _lay_out_comparison(self) -> None:
        self.models = gr.CheckboxGroup(
            [], label="Other models", info="registered versions, trained models and baselines"
        )
        self.compare = gr.Button("Compare titles")
        self.compared = gr.Dataframe(
            datatype="str",
            type="array",
            interactive=False,
            wrap=True,
            label="Titles by model",
            buttons=[],
            visible=False,
            elem_id="compared",
        )


def build_page(actions: PageActions) -> gr.Blocks:
    """Lay out the page and connect its buttons to `actions`. Titles and transcripts are shown as text, not markup."""
    with gr.Blocks(title="Lectern", analytics_enabled=False, delete_cache=_FILE_CLEANUP) as page:
        source, result = _Source(), _Result()
        _connect_source(source, result, actions)
        _connect_table(result, actions)
        _connect_uses(source, result, actions)
        page.load(
            actions.describe_models, None, [source.served, result.models], api_name="models", show_progress="hidden"
        )
    return page


def _connect_source(source: _Source, result: _Result, actions: PageActions) -> None:
    given = [
        source.status, source.transcripts, source.choice, source.text, source.file,
        result.corrected, result.download_all,
    ]  # fmt: skip
    finding: dict[str, Any] = {
        "fn": actions.chapters,
        "inputs": [source.text, source.transcripts, source.choice, source.minutes],
        "outputs": [
            source.status, result.table, result.found, result.course, result.lesson, source.served, result.timeline,
            result.whole, result.confirmed, result.titles, result.outcome,
        ],
        "show_progress_on": source.status,
    }  # fmt: skip
    source.file.upload(actions.read, [source.file], given, api_name="read", show_progress_on=source.status)
    source.choice.input(
        None, None, source.text, js="() => ''", api_visibility="private"
    )  # a pasted text would be used first
    source.find.click(**finding, api_name="chapters").then(**_script("showResult"))
    source.example.click(actions.example, None, given, api_name="example", show_progress="hidden").then(
        **finding, api_visibility="private"
    ).then(**_script("showResult"))


def _connect_table(result: _Result, actions: PageActions) -> None:
    now = [result.found, result.table]
    result.table.input(
        actions.show, [*now, result.corrected], [result.outcome, result.timeline, result.corrected],
        api_name="timeline", trigger_mode="always_last", show_progress="hidden",
    )  # fmt: skip
    result.suggest.click(
        actions.suggest, [*now, result.chapter], [result.outcome, result.titles, result.suggested_for],
        api_name="suggest", js="(...values) => lectern.withChapter(values)",
        show_progress="minimal", show_progress_on=result.timeline,
    )  # fmt: skip
    result.titles.input(
        actions.use_title, [*now, result.titles, result.suggested_for, result.corrected],
        [result.outcome, result.table, result.timeline, result.corrected],
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip


def _connect_uses(source: _Source, result: _Result, actions: PageActions) -> None:
    edited = [result.found, result.table, result.course, result.lesson]
    outcome = result.outcome
    result.copy.click(
        actions.copy, [*edited, result.form], [outcome, result.copied], api_name="copy", show_progress_on=outcome
    ).then(None, result.copied, None, js="(text) => lectern.copy(text)", api_visibility="private")
    result.download.click(
        actions.download, [*edited, result.form], [outcome, result.file_made],
        api_name="download", show_progress_on=outcome,
    ).then(**_script("download"))  # fmt: skip
    result.download_all.click(
        actions.download_all, [*edited, source.transcripts, result.corrected, source.minutes, result.form],
        [outcome, result.file_made], api_name="download_all", show_progress_on=outcome,
    ).then(**_script("download"))  # fmt: skip
    result.save.click(actions.save, [*edited, result.confirmed], [outcome], api_name="save")
    result.compare.click(
        actions.compare, [*edited, result.models], [outcome, result.compared],
        api_name="compare", show_progress_on=outcome,
    )  # fmt: skip


def _message(name: str, text: str = "") -> gr.HTML:
    """Create a place for a message, which screen readers read out."""
    return gr.HTML(text, html_template=_MESSAGE, elem_id=name, js_on_load=None)


def _script(function: str) -> dict[str, Any]:
    """Return the arguments of an event that calls a function of page.js."""
    return {
        "fn": None,
        "inputs": None,
        "outputs": None,
        "js": f"() => lectern.{function}()",
        "api_visibility": "private",
    }


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _theme() -> gr.themes.Default:
    """Create a theme whose texts have a contrast of at least 4.5:1, in light and in dark mode."""
    hint, dark_hint = "*neutral_600", "*neutral_300"
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONT, font_mono=_FONT).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        body_text_color_subdued=hint,
        body_text_color_subdued_dark=dark_hint,
        block_info_text_color=hint,
        block_info_text_color_dark=dark_hint,
        block_label_text_color=hint,
        block_label_text_color_dark=dark_hint,
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
