"""Refuse requests that pages of other sites send to a server on this machine.

A browser lets any page send requests to http://127.0.0.1. It names the page's site in the headers `Origin` or
`Sec-Fetch-Site`, which a page cannot change. In DNS rebinding, an attacker's host name resolves to this machine, so the
browser treats the attacker's page as the server's own. The name is then in the header `Host`. Programs such as curl
send `Host` only.

A browser sends `Sec-Fetch-Site` only over https or to this machine. Over plain http to other machines, `FRAMES` still
prevents foreign pages from framing the server's pages.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple, Self

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from pipeline.errors import UsageError

HOSTS = "LECTERN_HOSTS"
"""Environment variable with further host names of the servers, separated by commas; for example, a proxy's name."""

LOCAL = ("127.0.0.1", "localhost", "[::1]")

FRAMES = ("Content-Security-Policy", "frame-ancestors 'self'")
"""Header that is added to answers without a policy of their own."""

_DOCKER_HOST = "host.docker.internal"
"""Name of this machine in Docker Desktop's containers. `internal` is reserved, so an attacker cannot register it."""

_HOST = re.compile(r"(?P<name>\[[^\]]+\]|[^:]+)(:\d+)?")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LONGEST = 100  # characters of a header that an answer repeats


def configured_hosts() -> tuple[str, ...]:
    """Read the further host names from the environment, without ports.

    Raises:
        UsageError: one of them is not a host name.
    """
    return tuple(_host_name(each.strip().lower()) for each in os.environ.get(HOSTS, "").split(",") if each.strip())


def _host_name(text: str) -> str:
    found = _HOST.fullmatch(text)
    if found is None or not (_NAME.fullmatch(found["name"]) or _is_address(found["name"])):
        raise UsageError(
            f"{text!r} in {HOSTS} is not a host name. Write names separated by commas, such as "
            "lectern.example,10.0.0.7."
        )
    return found["name"]


class Refusal(NamedTuple):
    """Status and message of the answer to a refused request."""

    status: int
    why: str


@dataclass(frozen=True)
class OriginCheck:
    """Decides which requests a server answers.

    names: host names of the server, in lower case.
    addresses: whether the server also answers to any IP address. DNS rebinding needs a name, so this is safe.
    """

    names: frozenset[str]
    addresses: bool = False

    @classmethod
    def listening_on(cls, host: str) -> Self:
        """Create the check for a server that listens on `host`. Ports are ignored, because a tunnel may change them.

        Raises:
            UsageError: a configured name is not a host name.
        """
        names = frozenset({*LOCAL, _DOCKER_HOST, *configured_hosts()})
        if host in LOCAL:
            return cls(names)
        return cls(names | {host.lower(), socket.gethostname().lower()}, addresses=True)

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """Return why a request is refused, or None to answer it. The keys of `headers` are in lower case."""
        host = headers.get("host", "").lower()
        if not self._is_own(host):
            found = _HOST.fullmatch(host)
            name = found["name"] if found else host
            why = f"This server does not answer to the host name {name[:_LONGEST]!r}. "
            return Refusal(400, why + f"To allow the name, add it to the variable {HOSTS} and restart the server.")
        origin = headers.get("origin")
        if origin is not None:
            if _loaded_from(host, origin.lower()):
                return None
            return Refusal(403, f"A page of {origin[:_LONGEST]!r} may not use this server. Open the server's own page.")
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin") or _follows_link(method, headers):
            return None
        return Refusal(403, "A page of another site may not use this server. Open the server's own page.")

    def _is_own(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        return found is not None and (found["name"] in self.names or (self.addresses and _is_address(found["name"])))


class SameOrigin:
    """ASGI middleware that refuses requests and WebSockets by `check`, without reading their bodies.

    It adds `FRAMES` to all answers, so that only the server's own pages can frame them.
    """

    def __init__(self, app: ASGIApp, *, check: OriginCheck) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            refusal = None
        else:
            refusal = self._check.refusal(scope.get("method", "GET"), Headers(scope=scope))
        app = _answer(scope, refusal) if refusal else self._app
        await app(scope, receive, _with_frame_policy(send))


def _with_frame_policy(send: Send) -> Send:
    async def send_with_frame_policy(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": list(message.get("headers", ()))}
            MutableHeaders(scope=message).setdefault(*FRAMES)
        await send(message)

    return send_with_frame_policy


def _answer(scope: Scope, refusal: Refusal) -> ASGIApp:
    if scope["type"] == "websocket":
        return WebSocketClose(1008, refusal.why)
    return JSONResponse({"detail": refusal.why}, status_code=refusal.status, headers={"Connection": "close"})


def _loaded_from(host: str, origin: str) -> bool:
    """Return whether a page with this origin was loaded from `host`.

    The schemes may differ: a proxy may use https to the browser and http to the server.
    """
    scheme, _, authority = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and authority.removesuffix(port) == host.removesuffix(port)


def _follows_link(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether the browser follows a link and shows the answer as a page. Prefect's pages link to MLflow's."""
    return (method, headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("GET", "navigate", "document")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
