"""The server as a process."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from pipeline.errors import UsageError
from pipeline.extras import require_extra
from pipeline.server.app import create_app
from pipeline.server.current_version import Present
from pipeline.server.same_origin import OriginCheck, SameOrigin
from pipeline.server.settings import PAGE, PageSettings, ServeSettings
from pipeline.server.title_queue import Desk
from pipeline.titles.titling import present_version, writer_of

HOST = "127.0.0.1"


def serve(port: int, *, host: str = HOST, fast: bool = False) -> None:
    """Serves titles, and the page, until Ctrl-C or SIGTERM.

    Raises:
        UsageError: the port is taken, or a knob is wrong.
    """
    require_extra("page", user="The page")
    settings, page = ServeSettings.read(), PageSettings.read()
    listening = _listen(host, port)
    present = Present(lambda: present_version(fast=fast), writer_of, refresh=settings.refresh)
    desk = Desk(present.write, waiting=settings.waiting, batch=settings.batch)
    app = create_app(present, desk, settings)
    with tempfile.TemporaryDirectory(prefix="lectern-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when a file comes, and seen by this user alone
        tempfile.tempdir = folder  # for what is fetched of a version
        # Now that the port is ours: they take seconds to load.
        from pipeline.server.chapter_editor import Editor
        from pipeline.server.chapters_api import add_chapters
        from pipeline.server.page import mount_page

        editor = Editor(desk, present, settings, page, Path(folder))
        add_chapters(app, editor, settings)
        let_go = mount_page(app, editor, present, settings)
        at = f"http://{host}:{port}"
        print(f"A page at {at}{PAGE}; titles at {at}/titles, described at {at}/docs. Ctrl-C ends it.", flush=True)
        guarded = SameOrigin(app, check=OriginCheck.listening_on(host))
        config = uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=int(settings.seconds))
        _Server(config, let_go, Path(folder)).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Lets go of pages that are open, which would keep it from ending, and removes `files` as it ends."""

    def __init__(self, config: uvicorn.Config, let_go: Callable[[], None], files: Path) -> None:
        super().__init__(config)
        self._let_go = let_go
        self._files = files

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._let_go()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        shutil.rmtree(self._files, ignore_errors=True)  # whoever stops us may not wait until all else has ended
        await super().shutdown(sockets)
        shutil.rmtree(self._files, ignore_errors=True)  # the signal, raised anew, ends the process at once


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UsageError(f"{host}:{port} cannot be listened on ({error.strerror}). Choose another --port.") from None
    return listening
