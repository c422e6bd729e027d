"""A limit on how large a request may be, and on how long it may take to arrive."""

from __future__ import annotations

import asyncio

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Reads each request's body, of `most` bytes within `seconds`, before `app` sees anything of it."""

    def __init__(self, app: ASGIApp, *, most: int, seconds: float) -> None:
        self._app = app
        self._most = most
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except _TooLarge:
            await _refuse(413, f"A request may hold {self._most:,} bytes. Send less at once.", scope, receive, send)
        except TimeoutError:
            await _refuse(408, f"The request did not arrive within {self._seconds:g} s.", scope, receive, send)
        except _Gone:
            return
        else:
            await self._app(scope, _again(body, receive), send)

    async def _read(self, receive: Receive) -> bytes:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body += message.get("body", b"")
            if len(body) > self._most:
                raise _TooLarge
            more = message.get("more_body", False)
        return body


class _TooLarge(Exception):
    pass


class _Gone(Exception):
    pass


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` as it would be if nothing had been read of it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


async def _refuse(status: int, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    # The rest of a body that is too large is not waited for.
    response = JSONResponse({"detail": detail}, status_code=status, headers={"Connection": "close"})
    await response(scope, receive, send)
