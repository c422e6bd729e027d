"""Limits of a request: its size, its time to arrive, the memory of all bodies, and whether its client still waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeVar

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")

_CLIENT_CLOSED_REQUEST = 499  # nginx's status for it; only the log shows it


class BodyLimit:
    """ASGI middleware that reads a request's body before `app` gets the request.

    Args:
        app: the application behind it.
        most: most bytes in a body.
        seconds: most seconds for a body to arrive.
        together: most bytes in all bodies that have arrived and are not yet answered. Announced bytes do not count.
    """

    def __init__(self, app: ASGIApp, *, most: int, seconds: float, together: int) -> None:
        self._app = app
        self._most = most
        self._seconds = seconds
        self._room = together

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._taking_room() as take:
            try:
                async with asyncio.timeout(self._seconds):
                    body = await self._read(receive, take)
            except _BodyTooLarge:
                why = f"The request is larger than {self._most:,} bytes. Send a smaller one."
                await _refuse(413, why, scope, receive, send)
            except _NoRoom:
                retry = retry_after(self._seconds)  # slow requests have timed out by then
                await _refuse(429, "The server is busy. Retry later.", scope, receive, send, retry)
            except TimeoutError:
                why = f"The request did not arrive within {self._seconds:g} s. Send it again."
                await _refuse(408, why, scope, receive, send)
            except _Disconnected:
                return
            else:
                await self._app(scope, replayed(body, receive), send)

    async def _read(self, receive: Receive, take: Callable[[int], None]) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            part = message.get("body", b"")
            if len(body) + len(part) > self._most:
                raise _BodyTooLarge
            take(len(part))
            body += part
            more = message.get("more_body", False)
        return bytes(body)

    @contextmanager
    def _taking_room(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes a number of bytes of the room. The block's end gives them back."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self._room:
                raise _NoRoom
            self._room -= size
            taken += size

        try:
            yield take
        finally:
            self._room += taken


class _BodyTooLarge(Exception):
    pass


class _NoRoom(Exception):
    pass


class _Disconnected(Exception):
    pass


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header that tells a client when to retry."""
    return {"Retry-After": str(max(1, round(seconds)))}


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields a body already read, then the messages of the original `receive`."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await `work`. Cancel it if the client of `request` disconnects. The body must have been read.

    Raises:
        HTTPException: the client has disconnected.
    """
    working, disconnecting = asyncio.ensure_future(work), asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait([working, disconnecting], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(_CLIENT_CLOSED_REQUEST, "The client has disconnected.")
        return working.result()
    finally:
        working.cancel()
        disconnecting.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse(
    status: int,
    detail: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    # Closing the connection avoids waiting for the rest of a large body.
    response = JSONResponse({"detail": detail}, status_code=status, headers={"Connection": "close", **headers})
    await response(scope, receive, send)
