"""Access to the page: which of Gradio's paths are open, who the visitor is, and what a call or a browser may do."""

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

from pipeline.server.page_calls import MOST_FILES, InvalidCall, PageCalls
from pipeline.server.request_limits import replayed
from pipeline.server.visitors import COOKIE, AnswerStreams, VisitorFiles, is_visitor, new_visitor

UPLOAD, DOWNLOAD = "/gradio_api/upload", "/gradio_api/file="
_READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon|/(?:static|assets|svelte)/.+"
    r"|/gradio_api/(?:info/?|openapi\.json|app_id/?|startup-events|theme\.css|heartbeat/[\w-]+|file=.+)"
)
"""Paths to read: the page, its API's description, the files of Gradio's front end, and the visitor's downloads."""

_STREAM = re.compile(r"/gradio_api/(?:queue/data|call/(?:v2/)?\w+/(?P<event>\w+))")
_JOIN = "/gradio_api/queue/join"
_CALL = re.compile(r"/gradio_api/call/(?P<v2>v2/)?(?P<name>\w+)/?")


_OWN_CONTENT = "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        f"{_OWN_CONTENT}; img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class SecurityHeaders:
    """ASGI middleware that adds headers to the answers below `path`.

    With these headers, a browser lets the page send requests to this server only, and no other site can frame the page.
    """

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._path):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class PageAccess:
    """ASGI middleware that passes to Gradio only the requests that the page needs.

    A cookie identifies the visitor. Gradio gets a call only in the form that `calls` has checked.
    """

    def __init__(self, app: ASGIApp, *, calls: PageCalls, streams: AnswerStreams) -> None:
        self._app = app
        self._calls = calls
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # Gradio has no other routes
            await self._app(scope, receive, send)
            return
        scope, send = _with_cookie(scope, send)
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        if method == "POST" and (path == _JOIN or _CALL.fullmatch(path)):
            await self._call(path, scope, receive, send)
        elif method == "POST" and path == UPLOAD:
            await self._app(scope, receive, send)
        elif method == "GET" and (match := _STREAM.fullmatch(path)):
            stream = match["event"] or Request(scope).query_params.get("session_hash", "")
            if not self._streams.is_expected(stream):  # Gradio would fail while it answers
                await _refusal(404, "There is no call with this answer. Send the call first.")(scope, receive, send)
                return
            with self._streams.listening(stream):
                await self._app(scope, receive, send)
        elif method in ("GET", "HEAD") and _READ.fullmatch(path):
            await self._app(scope, receive, send)
        else:
            await _refusal(404, "The page has no such path. /gradio_api/info describes its API.")(scope, receive, send)

    async def _call(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        content, visitor = await Request(scope, receive).body(), visitor_of(Request(scope))
        try:
            if match := _CALL.fullmatch(path):
                check = self._calls.check_named_call if match["v2"] else self._calls.check_call
                content = check(match["name"], content, visitor)
                scope = {**scope, "path": f"{scope.get('root_path', '')}/gradio_api/call/{match['name']}"}
            else:
                content = self._calls.check_join(content, visitor)
        except InvalidCall as error:
            await _refusal(error.status, str(error))(scope, receive, send)
            return
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers["content-length"] = str(len(content))
        noting = self._noting_streams(content, send)
        await self._app({**scope, "headers": headers.raw}, replayed(content, receive), noting)

    def _noting_streams(self, call: bytes, send: Send) -> Send:
        """Return a `send` that notes the streams on which the answer to `call` can be requested."""

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.body" and b'"event_id"' in message.get("body", b""):
                self._streams.expect(json.loads(message["body"])["event_id"])
                if session := json.loads(call)["session_hash"]:
                    self._streams.expect(session)
            await send(message)

        return send_and_note


def visitor_of(request: Request) -> str:
    """Return the visitor who sent a request that `PageAccess` has passed on."""
    return request.cookies[COOKIE]


def file_routes(files: VisitorFiles, keep: Callable[[str], None]) -> list[Route]:
    """Create the routes for uploads and downloads, which replace Gradio's own.

    Args:
        keep: receives the path of each new file, to remove the file later.
    """

    async def upload(request: Request) -> Response:
        async with request.form(max_files=MOST_FILES, max_fields=10) as form:
            sent = [each for each in form.getlist("files") if isinstance(each, UploadFile)]
            paths = [await store(each, visitor_of(request)) for each in sent]
        if not paths:
            return _refusal(400, "The upload has no file. Send one as multipart/form-data in the field `files`.")
        return JSONResponse(paths)

    async def store(sent: UploadFile, visitor: str) -> str:
        path = files.new_folder(visitor) / _file_name(sent.filename or "")
        await asyncio.to_thread(path.write_bytes, await sent.read())
        keep(str(path))
        return str(path)

    async def download(request: Request) -> Response:
        path = files.find(visitor_of(request), request.path_params["path"])
        if path is None:
            return _refusal(404, "This visitor has no such file. Send the cookie that came with the call.")
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    return [Route(UPLOAD, upload, methods=["POST"]), Route(f"{DOWNLOAD}{{path:path}}", download)]


def _file_name(sent: str) -> str:
    name = strip_invalid_filename_characters(Path(sent).name)
    return name if name.strip(".") else "transcript"


def _with_cookie(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """Give a request without a visitor's cookie a new one, and its answer too."""
    headers = Headers(raw=scope["headers"])
    if is_visitor(Request(scope).cookies.get(COOKIE, "")):
        return scope, send
    visitor = new_visitor()
    cookie = SimpleCookie({COOKIE: visitor})
    cookie[COOKIE]["path"] = scope.get("root_path") or "/"
    cookie[COOKIE]["httponly"] = True
    cookie[COOKIE]["samesite"] = "lax"

    async def send_with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("set-cookie", cookie[COOKIE].OutputString())
        await send(message)

    cookies = "; ".join(
        [*headers.getlist("cookie"), f"{COOKIE}={visitor}"]
    )  # the last of two with the same name counts
    others = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    return {**scope, "headers": [*others, (b"cookie", cookies.encode("latin-1"))]}, send_with_cookie


def _refusal(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status)
