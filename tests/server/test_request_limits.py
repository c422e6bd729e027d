"""The limit on all bodies together, tried on a server over sockets."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
import uvicorn

from pipeline.registry.fallback_title import Shown
from pipeline.server.settings import ServeSettings
from pipeline.server.title_queue import TitleQueue
from pipeline.server.titles_api import create_app
from pipeline.server.version_watcher import VersionWatcher
from pipeline.titles.served_version import ServedVersion

MOST = 10_000
SETTINGS = ServeSettings(texts=2, megabytes=MOST / 1e6, seconds=5, waiting=1, batch=2, refresh=0.1)
PATIENCE = 30


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server with room for one large body. Its titles are the lengths of the texts."""

    def write(texts: list[str]) -> list[Shown]:
        return [Shown(str(len(text)), False) for text in texts]

    watcher = VersionWatcher(lambda: ServedVersion("titles", "1", "1"), lambda _: write, refresh=0.1)
    queue = TitleQueue(watcher.write_titles, waiting=SETTINGS.waiting, batch=SETTINGS.batch)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(watcher, queue, SETTINGS), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        port = listening.getsockname()[1]
        while not server.started or httpx.get(f"http://127.0.0.1:{port}/health").status_code != 200:
            time.sleep(0.01)
        yield port
        server.should_exit = True
        thread.join(PATIENCE)


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as sockets:
        yield sockets


def _body(size: int) -> bytes:
    around = len(json.dumps({"texts": [""]}))
    return json.dumps({"texts": ["a" * (size - around)]}).encode()


def _begin(port: int, sockets: ExitStack, body: bytes, size: int = MOST) -> socket.socket:
    """Announce a request of `size` bytes and send `body`, which may be shorter."""
    connection = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
    head = f"POST /titles HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def _answer(connection: socket.socket) -> str:
    return connection.recv(65536).decode()


def _answered(connections: list[socket.socket], seconds: float = PATIENCE) -> list[socket.socket]:
    return select.select(connections, [], [], seconds)[0]


def _whole(port: int) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{port}/titles", content=_body(MOST), headers={"Content-Type": "application/json"}
    )


def _until_a_whole_one_is_answered(port: int) -> None:
    """Wait until a large body is answered, which needs all of the room."""
    deadline = time.monotonic() + PATIENCE
    while (answer := _whole(port)).status_code != 200:
        assert (answer.status_code, time.monotonic() < deadline) == (429, True)
        time.sleep(0.05)


def test_bodies_over_the_common_limit_are_refused_until_there_is_room(port: int, sockets: ExitStack) -> None:
    body = _body(MOST)
    held = [_begin(port, sockets, body[:-1]) for _ in range(4)]
    refused: list[socket.socket] = []
    while len(refused) < 3:
        (one, *_) = _answered([each for each in held if each not in refused])
        answer = _answer(one)
        assert answer.startswith("HTTP/1.1 429")
        assert "retry-after: 5" in answer.lower()
        refused.append(one)
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    (waiting,) = (each for each in held if each not in refused)
    waiting.sendall(body[-1:])
    assert _answer(waiting).startswith("HTTP/1.1 200")
    _until_a_whole_one_is_answered(port)


def test_an_announced_body_takes_no_room(port: int, sockets: ExitStack) -> None:
    for _ in range(4):
        _begin(port, sockets, b"")
    assert _whole(port).status_code == 200


@pytest.mark.parametrize(
    ("body", "size", "status"),
    [
        (_body(MOST)[:-1], MOST, "408"),
        (b"a" * (MOST + 1), 2 * MOST, "413"),
        (b"a" * MOST, MOST, "422"),
        (_body(MOST), MOST, "200"),
    ],
)
def test_an_answered_request_gives_its_room_back(
    body: bytes, size: int, status: str, port: int, sockets: ExitStack
) -> None:
    assert _answer(_begin(port, sockets, body, size)).startswith(f"HTTP/1.1 {status}")
    _until_a_whole_one_is_answered(port)


def test_a_disconnected_client_gives_its_room_back(port: int, sockets: ExitStack) -> None:
    held = _begin(port, sockets, _body(MOST)[:-1])
    deadline = time.monotonic() + PATIENCE
    while _whole(port).status_code != 429:
        assert time.monotonic() < deadline
    held.close()
    _until_a_whole_one_is_answered(port)
