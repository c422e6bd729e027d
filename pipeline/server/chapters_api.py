"""HTTP API for chapters: POST /chapters takes a transcript and returns its chapters, one transcript at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords
from pipeline.server.chapter_editor import ChapterEditor, ChaptersResult, ClientLeft, ModelFailed, TimeLimitExceeded
from pipeline.server.request_limits import retry_after, while_connected
from pipeline.server.settings import ServeSettings
from pipeline.server.titles_api import BODY_REFUSED, RETRY, Refusal, Responses

_EXAMPLE = "0:00 hello and welcome, today we talk about bread\n0:07 first we look at the flour"
_RESPONSES: Responses = {
    **BODY_REFUSED,
    422: {"description": "The text is not a transcript, or is too long"},
    429: {"model": Refusal, "description": "The queue is full", **RETRY},
    500: {"model": Refusal, "description": "The model failed, or the encoder cannot be loaded"},
    503: {"model": Refusal, "description": "No version is loaded, or the server is busy", **RETRY},
    504: {"model": Refusal, "description": "Writing the chapters took too long"},
}


class ChaptersRequest(BaseModel):
    """A transcript, and how to divide it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"transcript": _EXAMPLE}]})

    transcript: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1),
        Field(description="WebVTT, SubRip, SBV, YouTube's JSON, or text with times."),
    ]
    minutes: Annotated[
        float | None,
        Field(
            ge=0.01,
            allow_inf_nan=False,
            description="Average length of a chapter. Default: `chapters.minutes` in params.yaml, else as learnt.",
        ),
    ] = None


class Chapter(BaseModel):
    """A chapter in an answer."""

    start_seconds: float
    end_seconds: float
    title: str
    fallback: Annotated[
        bool, Field(description="Whether the title is a keyphrase, because the model wrote no usable title.")
    ]


class Chapters(BaseModel):
    """The chapters of a transcript."""

    version: Annotated[str | None, Field(description="The registered version that wrote the titles: NAME/NUMBER.")]
    chapters: Annotated[list[Chapter], Field(description="In order of time; the first starts at 0.")]


def add_chapters_api(app: FastAPI, editor: ChapterEditor, settings: ServeSettings) -> None:
    """Add the path /chapters to `app`."""
    worker = ThreadPoolExecutor(1, thread_name_prefix="chapters")
    waiting = 0

    def write(body: ChaptersRequest, until: float, client_left: threading.Event) -> ChaptersResult:
        if client_left.is_set():
            raise ClientLeft
        transcript = editor.read_pasted(body.transcript)
        return editor.chapters(transcript, body.minutes, until=until, is_waiting=lambda: not client_left.is_set())

    @app.post("/chapters", summary="Divide a transcript into chapters with titles", responses=_RESPONSES)
    async def chapters(body: ChaptersRequest, request: Request) -> Chapters:
        nonlocal waiting
        client_left = threading.Event()
        retry = retry_after(settings.refresh)
        if waiting >= settings.waiting:
            raise HTTPException(429, "Queue full; retry later.", headers=retry)
        waiting += 1
        try:
            async with asyncio.timeout(settings.seconds):
                # A worker, not a lock: after a client has left, the worker stays busy until its work has stopped.
                job = worker.submit(write, body, time.monotonic() + settings.seconds, client_left)
                result = await while_connected(request, asyncio.wrap_future(job))
        except (TimeoutError, TimeLimitExceeded):
            raise HTTPException(
                504,
                f"The chapters were not ready within {settings.seconds:g} s. Ask for longer chapters with `minutes`, "
                "or send a shorter transcript.",
            ) from None
        except ModelFailed as error:
            raise HTTPException(500, hide_passwords(str(error))) from None
        except (Rejected, UsageError) as error:
            raise HTTPException(422, str(error)) from None
        except TemporaryFailure as error:
            raise HTTPException(503, str(error), headers=retry) from None
        finally:
            client_left.set()
            waiting -= 1
        return _as_response(result)


def _as_response(result: ChaptersResult) -> Chapters:
    chapters = [
        Chapter(
            start_seconds=each.start_seconds,
            end_seconds=each.end_seconds,
            title=each.title,
            fallback=number in result.lesson.keyphrases,
        )
        for number, each in enumerate(result.lesson.chapters, start=1)
    ]
    return Chapters(version=result.version, chapters=chapters)
