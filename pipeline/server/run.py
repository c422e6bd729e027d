"""The server as a process."""

from __future__ import annotations

import socket

import uvicorn

from pipeline.errors import Misused
from pipeline.server.app import create_app
from pipeline.server.present import Present
from pipeline.server.settings import ServeSettings
from pipeline.titles.version import present_version, writer_of

HOST = "127.0.0.1"


def serve(port: int, *, host: str = HOST, fast: bool = False) -> None:
    """Serves titles until Ctrl-C or SIGTERM.

    Raises:
        Misused: the port is taken, or a knob is wrong.
    """
    settings = ServeSettings.read()
    listening = _listen(host, port)
    present = Present(lambda: present_version(fast=fast), writer_of, refresh=settings.refresh)
    app = create_app(present, settings)
    print(f"Titles at http://{host}:{port}/titles, described at http://{host}:{port}/docs. Ctrl-C ends it.", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=int(settings.seconds))
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise Misused(f"{host}:{port} cannot be listened on ({error.strerror}). Choose another --port.") from None
    return listening
