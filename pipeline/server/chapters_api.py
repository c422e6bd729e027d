"""Chapters over HTTP: a transcript in, its chapters out, one talk at a time."""

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
from pipeline.server.app import COME_BACK, TOO_LARGE_OR_LATE, Refusal
from pipeline.server.chapter_editor import Abandoned, Editor, Failed, Found, Late
from pipeline.server.disconnects import while_connected
from pipeline.server.request_limits import retry_after
from pipeline.server.settings import ServeSettings

_EXAMPLE = "0:00 hello and welcome, today we talk about bread\n0:07 first we look at the flour"


class Transcript(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"transcript": _EXAMPLE}]})

    transcript: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1),
        Field(description="WebVTT, SubRip, SBV, YouTube's JSON, or text with times."),
    ]
    minutes: Annotated[
        float | None,
        Field(ge=0.01, allow_inf_nan=False, description="Mean length of a chapter; that of params.yaml without it."),
    ] = None


class Chapter(BaseModel):
    start_seconds: float
    end_seconds: float
    title: str
    fallback: Annotated[bool, Field(description="The title is a keyphrase: the model wrote nothing of use.")]


class Chapters(BaseModel):
    version: Annotated[str | None, Field(description="The registered version that wrote the titles: NAME/NUMBER.")]
    chapters: Annotated[list[Chapter], Field(description="In the order of time; the first starts at 0.")]


def add_chapters(app: FastAPI, editor: Editor, settings: ServeSettings) -> None:
    """Gives `app` the path /chapters."""
    worker = ThreadPoolExecutor(1, thread_name_prefix="chapters")
    waiting = 0

    def write(asked: Transcript, until: float, gone: threading.Event) -> Found:
        if gone.is_set():
            raise Abandoned
        talk = editor.read_pasted(asked.transcript)
        return editor.chapters(talk, asked.minutes, until=until, wanted=lambda: not gone.is_set())

    @app.post(
        "/chapters",
        summary="The chapters of a talk",
        responses={
            **TOO_LARGE_OR_LATE,
            422: {"description": "It is no transcript, or a longer one than is taken"},
            429: {"model": Refusal, "description": "Too many requests wait", **COME_BACK},
            500: {"model": Refusal, "description": "The model failed, or there is no encoder"},
            503: {"model": Refusal, "description": "No version is loaded, or it has too much to do", **COME_BACK},
            504: {"model": Refusal, "description": "The chapters took too long to write"},
        },
    )
    async def chapters(body: Transcript, request: Request) -> Chapters:
        nonlocal waiting
        gone = threading.Event()
        again = retry_after(settings.refresh)
        if waiting >= settings.waiting:
            raise HTTPException(429, "As many talks wait as may. Come back later.", headers=again)
        waiting += 1
        try:
            async with asyncio.timeout(settings.seconds):
                # Not by a lock: whoever gives up leaves the talk that is worked on to the worker, until that notices.
                job = worker.submit(write, body, time.monotonic() + settings.seconds, gone)
                found = await while_connected(request, asyncio.wrap_future(job))
        except (TimeoutError, Late):
            raise HTTPException(
                504,
                f"The chapters were not written within {settings.seconds:g} s. Ask for longer ones, by minutes, or "
                "for those of a shorter talk.",
            ) from None
        except Failed as error:
            raise HTTPException(500, hide_passwords(str(error))) from None
        except (Rejected, UsageError) as error:
            raise HTTPException(422, str(error)) from None
        except TemporaryFailure as error:
            raise HTTPException(503, str(error), headers=again) from None
        finally:
            gone.set()
            waiting -= 1
        parts = [
            Chapter(
                start_seconds=each.start_seconds,
                end_seconds=each.end_seconds,
                title=each.title,
                fallback=number in found.chaptered.keyphrases,
            )
            for number, each in enumerate(found.chaptered.chapters, start=1)
        ]
        return Chapters(version=found.version, chapters=parts)
