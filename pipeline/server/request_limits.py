"""Limits on requests as they arrive: how large one may be, how long it may take, and how much all may hold together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Reads each request's body, of `most` bytes within `seconds`, before `app` sees anything of it.

    What has arrived of all bodies, and is not answered yet, is `together` bytes at most. What is only announced costs
    nothing.
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
            except _TooLarge:
                await _refuse(413, f"A request may hold {self._most:,} bytes. Send less at once.", scope, receive, send)
            except _NoRoom:
                why = "As much is on its way, or being answered, as may. Come back later."
                again = retry_after(self._seconds)  # by then, whoever is slow has been sent away
                await _refuse(429, why, scope, receive, send, again)
            except TimeoutError:
                await _refuse(408, f"The request did not arrive within {self._seconds:g} s.", scope, receive, send)
            except _Gone:
                return
            else:
                await self._app(scope, replayed(body, receive), send)

    async def _read(self, receive: Receive, take: Callable[[int], None]) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            if len(body) + len(part) > self._most:
                raise _TooLarge
            take(len(part))
            body += part
            more = message.get("more_body", False)
        return bytes(body)

    @contextmanager
    def _taking_room(self) -> Iterator[Callable[[int], None]]:
        """Yields what takes so many bytes of the room; they are given back after the block."""
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


class _TooLarge(Exception):
    pass


class _NoRoom(Exception):
    pass


class _Gone(Exception):
    pass


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says so."""
    return {"Retry-After": str(max(1, round(seconds)))}


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that hands out `body`, and then whatever else arrives."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


async def _refuse(
    status: int,
    detail: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    # The rest of a body that is too large is not waited for.
    response = JSONResponse({"detail": detail}, status_code=status, headers={"Connection": "close", **headers})
    await response(scope, receive, send)
