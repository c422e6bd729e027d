"""Chapters over HTTP: a transcript in, its chapters out, one talk at a time."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.errors import Misused, Refused, Unavailable
from pipeline.server.app import COME_BACK, TOO_LARGE_OR_LATE, Refusal, retry_after
from pipeline.server.editor import Editor, Found
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
        float | None, Field(gt=0, description="Mean length of a chapter; that of params.yaml without it.")
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
    turn = asyncio.Semaphore(1)
    waiting = 0

    def write(asked: Transcript) -> Found:
        return editor.chapters(editor.read_pasted(asked.transcript), asked.minutes)

    @app.post(
        "/chapters",
        summary="The chapters of a talk",
        responses={
            **TOO_LARGE_OR_LATE,
            422: {"description": "It is no transcript, or a longer one than is taken"},
            429: {"model": Refusal, "description": "Too many requests wait", **COME_BACK},
            503: {"model": Refusal, "description": "No version is loaded, or it has too much to do", **COME_BACK},
        },
    )
    async def chapters(body: Transcript) -> Chapters:
        nonlocal waiting
        again = retry_after(settings.refresh)
        if waiting >= settings.waiting:
            raise HTTPException(429, "As many talks wait as may. Come back later.", headers=again)
        waiting += 1
        try:
            async with turn:
                found = await asyncio.to_thread(write, body)
        except (Refused, Misused) as error:
            raise HTTPException(422, str(error)) from None
        except Unavailable as error:
            raise HTTPException(503, str(error), headers=again) from None
        finally:
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
