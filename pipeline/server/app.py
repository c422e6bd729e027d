"""Titles over HTTP: texts in, titles out, and what the server says where it cannot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.data.lesson_openings import OPENING_MARK
from pipeline.server.current_version import Present
from pipeline.server.disconnects import while_connected
from pipeline.server.request_limits import BodyLimit, retry_after
from pipeline.server.settings import ServeSettings
from pipeline.server.title_queue import Desk, Full

_LONGEST_NAME = 100  # characters of a field's name that are sent back

_EXAMPLE = "so in this part we look at how a learning rate that is too high makes the loss go up instead of down"
_PASSAGES = f"Passages of a transcript. `{OPENING_MARK}` ahead of one says that its lesson begins with it."
COME_BACK = {"headers": {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}}}


class Title(BaseModel):
    title: Annotated[str, Field(description="Empty where the text has not even a keyphrase.")]
    fallback: Annotated[bool, Field(description="It is a keyphrase of the text: the model wrote no title of use.")]


class Titles(BaseModel):
    version: Annotated[str, Field(description="The registered version that wrote them: NAME/NUMBER.")]
    titles: Annotated[list[Title], Field(description="One for each text, in the order of the texts.")]


class Health(BaseModel):
    version: Annotated[str | None, Field(description="The version that is served; null while there is none.")]
    waiting: Annotated[int, Field(description="Requests that wait.")]
    problem: Annotated[str | None, Field(description="Why there is no version, or no newer one.")]


class Refusal(BaseModel):
    detail: str


TOO_LARGE_OR_LATE = {
    408: {"model": Refusal, "description": "The request took too long to arrive"},
    413: {"model": Refusal, "description": "The request is too large"},
}
"""How the body limit refuses, on every path."""


def create_app(present: Present, desk: Desk, settings: ServeSettings) -> FastAPI:
    """The application, which opens `present` and `desk` as it starts, and closes them as it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        present.open()
        desk.open()
        yield
        await asyncio.to_thread(desk.close)
        await asyncio.to_thread(present.close)

    app = FastAPI(title="Lectern", description=__doc__, version="1", lifespan=lifespan)
    app.add_exception_handler(RequestValidationError, say_what_is_wrong)
    most = int(settings.megabytes * 1_000_000)
    app.add_middleware(BodyLimit, most=most, seconds=settings.seconds, together=settings.waiting * most)

    class Texts(BaseModel):
        model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"texts": [_EXAMPLE]}]})

        texts: Annotated[
            list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]],
            Field(min_length=1, max_length=settings.texts, description=_PASSAGES),
        ]

    @app.post(
        "/titles",
        summary="A title for each text",
        responses={
            **TOO_LARGE_OR_LATE,
            429: {"model": Refusal, "description": "Too many requests wait", **COME_BACK},
            500: {"model": Refusal, "description": "The model failed"},
            503: {"model": Refusal, "description": "No version is loaded", **COME_BACK},
            504: {"model": Refusal, "description": "The titles took too long to write"},
        },
    )
    async def titles(body: Texts, request: Request) -> Titles:
        if present.version is None:
            why = present.problem or "The version is being loaded."
            raise HTTPException(503, why, headers=retry_after(settings.refresh))
        try:
            future = desk.submit(body.texts)
        except Full as full:
            raise HTTPException(429, str(full), headers=retry_after(full.seconds)) from None
        try:
            async with asyncio.timeout(settings.seconds):
                version, written = await while_connected(request, asyncio.wrap_future(future))
        except TimeoutError:
            raise HTTPException(504, f"The titles were not written within {settings.seconds:g} s.") from None
        except asyncio.CancelledError:
            if future.cancelled() and not _is_cancelled():
                raise HTTPException(503, "The server is ending.") from None
            raise
        except HTTPException:
            raise
        except Exception as error:
            raise HTTPException(500, f"The model failed: {type(error).__name__}. The server's log says more.") from None
        return Titles(version=version, titles=[Title(**each._asdict()) for each in written])

    @app.get("/health", summary="Whether titles can be had", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        response.status_code = 200 if present.version else 503
        return Health(version=present.version, waiting=desk.waiting, problem=present.problem)

    return app


async def say_what_is_wrong(_: Request, error: RequestValidationError) -> JSONResponse:
    """Without what was sent, which may be megabytes, or such as NaN, which no JSON can hold."""
    said = [
        {
            "type": fault["type"],
            "loc": [part[:_LONGEST_NAME] if isinstance(part, str) else part for part in fault["loc"]],
            "msg": fault["msg"],
        }
        for fault in error.errors()
    ]
    return JSONResponse({"detail": said}, status_code=422)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
