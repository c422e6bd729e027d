"""HTTP API for titles: POST /titles takes texts and returns titles; GET /health describes the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.data.lesson_openings import OPENING_MARK
from pipeline.server.request_limits import BodyLimit, retry_after, while_connected
from pipeline.server.settings import ServeSettings
from pipeline.server.title_queue import QueueFull, TitleQueue, WrittenTitles
from pipeline.server.version_watcher import VersionWatcher

_LONGEST_NAME = 100  # characters of a field name that an answer repeats

_EXAMPLE = "so in this part we look at how a learning rate that is too high makes the loss go up instead of down"
_TEXTS = f"Passages of transcripts. Put `{OPENING_MARK}` before the first passage of a lesson."
RETRY = {"headers": {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}}}

Responses = dict[int | str, dict[str, Any]]


class Title(BaseModel):
    """A title in an answer."""

    title: Annotated[str, Field(description="Empty if the model wrote no usable title and the text has no keyphrase.")]
    fallback: Annotated[
        bool, Field(description="Whether the title is a keyphrase, because the model wrote no usable title.")
    ]


class Titles(BaseModel):
    """The titles of the texts of a request, in their order."""

    version: Annotated[str, Field(description="The registered version that wrote the titles: NAME/NUMBER.")]
    titles: Annotated[list[Title], Field(description="One title for each text, in the same order.")]


class Health(BaseModel):
    """The state of the server."""

    version: Annotated[str | None, Field(description="The loaded version; null until one is loaded.")]
    waiting: Annotated[int, Field(description="Number of waiting requests.")]
    problem: Annotated[str | None, Field(description="Why no version, or no newer version, is loaded.")]


class Refusal(BaseModel):
    """Why a request is refused."""

    detail: str


BODY_REFUSED: Responses = {
    408: {"model": Refusal, "description": "The request took too long to arrive"},
    413: {"model": Refusal, "description": "The request is too large"},
}
"""The answers of the body limit, on every path."""


def create_app(watcher: VersionWatcher, queue: TitleQueue, settings: ServeSettings) -> FastAPI:
    """Create the application. It opens `watcher` and `queue` when it starts and closes them when it stops."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watcher.open()
        queue.open()
        yield
        await asyncio.to_thread(queue.close)
        await asyncio.to_thread(watcher.close)

    app = FastAPI(
        title="Lectern", description="Titles and chapters for lecture transcripts.", version="1", lifespan=lifespan
    )
    app.exception_handler(RequestValidationError)(describe_invalid_request)
    most = int(settings.megabytes * 1_000_000)
    app.add_middleware(BodyLimit, most=most, seconds=settings.seconds, together=settings.waiting * most)

    class Texts(BaseModel):
        model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"texts": [_EXAMPLE]}]})

        texts: Annotated[
            list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]],
            Field(min_length=1, max_length=settings.texts, description=_TEXTS),
        ]

    responses: Responses = {
        **BODY_REFUSED,
        429: {"model": Refusal, "description": "The queue is full", **RETRY},
        500: {"model": Refusal, "description": "The model failed"},
        503: {"model": Refusal, "description": "No version is loaded", **RETRY},
        504: {"model": Refusal, "description": "Writing the titles took too long"},
    }

    @app.post("/titles", summary="Write a title for each text", responses=responses)
    async def titles(body: Texts, request: Request) -> Titles:
        if watcher.version is None:
            why = watcher.problem or "The version is still loading. Retry later."
            raise HTTPException(503, why, headers=retry_after(settings.refresh))
        try:
            future = queue.submit(body.texts)
        except QueueFull as full:
            raise HTTPException(429, str(full), headers=retry_after(full.seconds)) from None
        waiting: asyncio.Future[WrittenTitles] = asyncio.wrap_future(future)
        try:
            async with asyncio.timeout(settings.seconds):
                written = await while_connected(request, waiting)
        except TimeoutError:
            why = f"The titles were not ready within {settings.seconds:g} s. Send fewer texts at once."
            raise HTTPException(504, why) from None
        except asyncio.CancelledError:
            if future.cancelled() and not _is_cancelled():
                raise HTTPException(503, "The server is stopping. Retry later.") from None
            raise
        except HTTPException:
            raise
        except Exception as error:
            raise HTTPException(500, f"The model failed ({type(error).__name__}). See the server's log.") from None
        return Titles(
            version=written.version, titles=[Title(title=each.title, fallback=each.fallback) for each in written.titles]
        )

    @app.get("/health", summary="Describe the loaded version and the queue", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        response.status_code = 200 if watcher.version else 503
        return Health(version=watcher.version, waiting=queue.waiting, problem=watcher.problem)

    return app


async def describe_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answer an invalid request without its values: they may be megabytes, or values such as NaN that JSON lacks."""
    faults = [
        {
            "type": fault["type"],
            "loc": [part[:_LONGEST_NAME] if isinstance(part, str) else part for part in fault["loc"]],
            "msg": fault["msg"],
        }
        for fault in error.errors()
    ]
    return JSONResponse({"detail": faults}, status_code=422)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
