"""The way into the page: which of Gradio's paths are open, who the visitor is, and what a call may hold."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path

from gradio_client.utils import strip_invalid_filename_characters
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.server.page_calls import PageCalls, WrongCall
from pipeline.server.request_limits import replayed
from pipeline.server.visitors import COOKIE, VisitorFiles, is_visitor, new_visitor
from pipeline.server.waiting_visitors import Listeners

UPLOAD, DOWNLOAD = "/gradio_api/upload", "/gradio_api/file="
_READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon|/(?:static|assets|svelte)/.+"
    r"|/gradio_api/(?:info/?|openapi\.json|app_id/?|startup-events|theme\.css|heartbeat/[\w-]+|file=.+)"
)
"""The page, its description, and files: those of Gradio's own front end, and those that were made for the visitor."""

_ANSWERS = re.compile(r"/gradio_api/(?:queue/data|call/(?:v2/)?\w+/(?P<event>\w+))")
_JOIN = "/gradio_api/queue/join"
_CALL = re.compile(r"/gradio_api/call/(?P<v2>v2/)?(?P<name>\w+)/?")


class PageDoor:
    """Lets through to Gradio what the page needs, and nothing else.

    A visitor is told from others by a cookie. A call reaches Gradio only as `calls` has checked it.
    """

    def __init__(self, app: ASGIApp, *, calls: PageCalls, listeners: Listeners) -> None:
        self._app = app
        self._calls = calls
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # Gradio has no route for them
            await self._app(scope, receive, send)
            return
        scope, send = _introduced(scope, send)
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        if method == "POST" and (path == _JOIN or _CALL.fullmatch(path)):
            await self._call(path, scope, receive, send)
        elif method == "POST" and path == UPLOAD:
            await self._app(scope, receive, send)
        elif method == "GET" and (answers := _ANSWERS.fullmatch(path)):
            stream = answers["event"] or Request(scope).query_params.get("session_hash", "")
            if not self._listeners.is_expected(stream):  # Gradio would fail, in the middle of its answer
                await _refusal(404, "No call of yours waits for this answer.")(scope, receive, send)
                return
            with self._listeners.listening(stream):
                await self._app(scope, receive, send)
        elif method in ("GET", "HEAD") and _READ.fullmatch(path):
            await self._app(scope, receive, send)
        else:
            await _refusal(404, "The page has nothing here.")(scope, receive, send)

    async def _call(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        content, visitor = await Request(scope, receive).body(), visitor_of(Request(scope))
        try:
            if match := _CALL.fullmatch(path):
                check = self._calls.called_with_names if match["v2"] else self._calls.called
                content = check(match["name"], content, visitor)
                scope = {**scope, "path": f"{scope.get('root_path', '')}/gradio_api/call/{match['name']}"}
            else:
                content = self._calls.joined(content, visitor)
        except WrongCall as error:
            await _refusal(error.status, str(error))(scope, receive, send)
            return
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers["content-length"] = str(len(content))
        await self._app({**scope, "headers": headers.raw}, replayed(content, receive), self._expecting(content, send))

    def _expecting(self, call: bytes, send: Send) -> Send:
        """Return a `send` that notes on which streams the answer to `call` may be asked for."""

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.body" and b'"event_id"' in message.get("body", b""):
                self._listeners.expect(json.loads(message["body"])["event_id"])
                if session := json.loads(call)["session_hash"]:
                    self._listeners.expect(session)
            await send(message)

        return send_noting


def visitor_of(request: Request) -> str:
    """The visitor who sends a request that has come through the door."""
    return request.cookies[COOKIE]


def file_routes(files: VisitorFiles, keep: Callable[[str], None]) -> list[Route]:
    """The routes by which a visitor's files come and go, in place of Gradio's own.

    Args:
        keep: told the path of each new file, which it removes some day.
    """

    async def upload(request: Request) -> Response:
        async with request.form(max_files=1, max_fields=10) as form:
            sent = form.get("files")
            if not isinstance(sent, UploadFile):
                return _refusal(400, "The upload holds no file. Send one as multipart/form-data, in the field files.")
            path = files.new_folder(visitor_of(request)) / _file_name(sent.filename or "")
            await asyncio.to_thread(path.write_bytes, await sent.read())
        keep(str(path))
        return JSONResponse([str(path)])

    async def download(request: Request) -> Response:
        path = files.find(visitor_of(request), request.path_params["path"])
        if path is None:
            return _refusal(404, "There is no such file among those that were made for you.")
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    return [Route(UPLOAD, upload, methods=["POST"]), Route(f"{DOWNLOAD}{{path:path}}", download)]


def _file_name(sent: str) -> str:
    name = strip_invalid_filename_characters(Path(sent).name)
    return name if name.strip(".") else "transcript"


def _introduced(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """The request with a visitor's cookie. Where it has none, it is given one, and so is the answer."""
    headers = Headers(raw=scope["headers"])
    if is_visitor(Request(scope).cookies.get(COOKIE, "")):
        return scope, send
    visitor = new_visitor()
    cookie = SimpleCookie({COOKIE: visitor})
    cookie[COOKIE].update({"path": scope.get("root_path") or "/", "httponly": True, "samesite": "lax"})

    async def send_introducing(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("set-cookie", cookie[COOKIE].OutputString())
        await send(message)

    cookies = "; ".join([*headers.getlist("cookie"), f"{COOKIE}={visitor}"])  # of two with one name, the last counts
    others = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    return {**scope, "headers": [*others, (b"cookie", cookies.encode("latin-1"))]}, send_introducing


def _refusal(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status)
