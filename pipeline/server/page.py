"""The web page: give a transcript, get its chapters, correct, compare, download and save them.

This module lays out the page and mounts it into the server. page_actions.py has the functions of its buttons.
"""

from __future__ import annotations

from collections.abc import Callable
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

_FILE_TYPES = [
    ".vtt",
    ".srt",
    ".sbv",
    ".ass",
    ".lrc",
    ".ttml",
    ".xml",
    ".json",
    ".json3",
    ".sjson",
    ".tsv",
    ".csv",
    ".txt",
]
_FILE_TYPES += [".docx", ".xlsx", ".xlsm"]
_FORM_BYTES = 4096  # of an upload, around its file
_MOST_SESSIONS = 100  # whose transcripts are kept in memory
_FILE_CLEANUP = (60, 600)  # seconds between two clean-ups, and age of the files that they remove
_TRANSCRIPT_LIFETIME = 3600  # seconds after the visitor has closed the page
_INTRODUCTION = """# Lectern
Paste a transcript or upload a file to get its chapters. Correct them in the table, then download them."""
_EXAMPLE = """0:00 hello and welcome, today we talk about bread
0:07 first we look at the flour ..."""
_FONT = ["system-ui", "sans-serif"]
_STYLE = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container main { min-width: 0 !important; width: 100%; }
#compared, #chapters { max-width: 100%; min-width: 0 !important; overflow-x: auto; }
#status textarea { font-weight: 600; }
"""
_CLICK_DOWNLOAD = "() => document.querySelector('#file')?.click()"
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
        theme=gr.themes.Default(font=_FONT, font_mono=_FONT),
        css=_STYLE,
    )
    # Gradio checks file paths only if the page counts as launched. This adds to the checks of PageAccess.
    page.has_launched = True
    mounted: Any = cast(Mount, app.routes[-1]).app
    mounted.add_middleware(PageAccess, calls=PageCalls(page, files), streams=streams)
    mounted.router.routes[:0] = file_routes(files, page.upload_file_set.add)
    mounted.add_exception_handler(RequestValidationError, describe_invalid_request)
    return mounted.stop_event.set


def build_page(actions: PageActions) -> gr.Blocks:
    """Lay out the page and connect its buttons to `actions`. Titles and transcripts are shown as text, not markup."""
    with gr.Blocks(title="Lectern", analytics_enabled=False, delete_cache=_FILE_CLEANUP) as page:
        transcripts = gr.State([], time_to_live=_TRANSCRIPT_LIFETIME)
        transcript = gr.State(None, time_to_live=_TRANSCRIPT_LIFETIME)
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                text = gr.Textbox(label="Transcript with times", lines=10, max_lines=16, placeholder=_EXAMPLE)
                file = gr.File(label="Or a file", file_types=_FILE_TYPES, height=140)
                choice = gr.Dropdown(label="Lesson of the workbook", visible=False, interactive=True, type="index")
                minutes = gr.Number(
                    label="Minutes per chapter",
                    info="average; 0: as params.yaml says or as learnt",
                    value=0,
                    minimum=0,
                )
                find = gr.Button("Find chapters", variant="primary")
                served = gr.Textbox(label="Model", interactive=False, lines=1)
            with gr.Column(scale=3, min_width=280):
                status = gr.Textbox(label="Status", interactive=False, lines=2, elem_id="status")
                with gr.Row():
                    course = gr.Textbox(label="Course", min_width=120)
                    lesson = gr.Textbox(label="Lesson", min_width=80)
                table = gr.Dataframe(
                    headers=["time", "title"],
                    datatype="str",
                    type="array",
                    label="Chapters: click a cell to correct it, or its ⋮ to add or delete a row",
                    interactive=True,
                    buttons=[],
                    column_widths=[TIME_WIDTH, "auto"],
                    show_row_numbers=True,
                    wrap=True,
                    elem_id="chapters",
                )
                with gr.Row():
                    form = gr.Dropdown(
                        _FORMATS, value="youtube", show_label=False, container=False, interactive=True, min_width=240
                    )
                    download = gr.Button("Download the chapters", min_width=120)
                save = gr.Button("Save the chapters for training")
                file_made = gr.DownloadButton("file", visible="hidden", elem_id="file")
        with gr.Column(min_width=280):
            models = gr.CheckboxGroup(
                [], label="Other models", info="registered versions, trained models and baselines"
            )
            compare = gr.Button("Compare titles")
            compared = gr.Dataframe(
                datatype="str",
                type="array",
                interactive=False,
                wrap=True,
                label="Titles by model",
                buttons=[],
                visible=False,
                elem_id="compared",
            )

        edited = [transcript, table, course, lesson]
        file.upload(actions.read, [file], [status, transcripts, choice, course, lesson, text, file], api_name="read")
        choice.input(actions.name_lesson, [transcripts, choice], [course, lesson], api_visibility="private")
        find.click(
            actions.chapters, [text, transcripts, choice, minutes],
            [status, table, transcript, course, lesson, served], api_name="chapters",
        )  # fmt: skip
        download.click(actions.download, [*edited, form], [status, file_made], api_name="download").then(
            None, None, None, js=_CLICK_DOWNLOAD, api_visibility="private"
        )
        save.click(actions.save, edited, [status], api_name="save")
        compare.click(actions.compare, [*edited, models], [status, compared], api_name="compare")
        page.load(actions.describe_models, None, [served, models], api_name="models")
    return page
