"""Work for a client, dropped when the client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import HTTPException, Request

T = TypeVar("T")

_CLIENT_CLOSED_REQUEST = 499  # as nginx calls it; nobody reads it, but a log shows it


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await `work`; cancel it once the client of `request`, whose body has been read, hangs up.

    Raises:
        HTTPException: the client has hung up.
    """
    working, hanging_up = asyncio.ensure_future(work), asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait([working, hanging_up], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(_CLIENT_CLOSED_REQUEST, "The client has hung up.")
        return working.result()
    finally:
        working.cancel()
        hanging_up.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
