"""Run the server of titles, chapters and the page."""

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
from pipeline.server.same_origin import OriginCheck, SameOrigin
from pipeline.server.settings import PAGE_PATH, PageSettings, ServeSettings
from pipeline.server.title_queue import TitleQueue
from pipeline.server.titles_api import create_app
from pipeline.server.version_watcher import VersionWatcher
from pipeline.titles.served_version import find_served_version, load_segmenter, load_titler


def run_server(port: int, *, host: str) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UsageError: the port is in use, or a setting is wrong.
    """
    require_extra("page", user="The page")
    settings, page = ServeSettings.read(), PageSettings.read()
    listening = _listen(host, port)
    watcher = VersionWatcher(find_served_version, load_titler, load_segmenter, refresh=settings.refresh)
    queue = TitleQueue(watcher.write_titles, waiting=settings.waiting, batch=settings.batch)
    app = create_app(watcher, queue, settings)
    with tempfile.TemporaryDirectory(prefix="lectern-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # Gradio reads it for each upload; only this user can open the folder
        tempfile.tempdir = folder  # for downloads of a version's files
        # These imports take seconds. A port in use is reported before.
        from pipeline.server.chapter_editor import ChapterEditor
        from pipeline.server.chapters_api import add_chapters_api
        from pipeline.server.page import mount_page

        editor = ChapterEditor(queue, watcher, settings, page, Path(folder))
        add_chapters_api(app, editor, settings)
        close_pages = mount_page(app, editor, watcher, settings)
        address = f"http://{host}:{port}"
        print(
            f"Page: {address}{PAGE_PATH}. HTTP API: {address}/titles, described at {address}/docs. "
            "Press Ctrl-C to stop.",
            flush=True,
        )
        guarded = SameOrigin(app, check=OriginCheck.listening_on(host))
        config = uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=int(settings.seconds))
        _Server(config, close_pages, Path(folder)).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that stops at once, although pages are open, and removes `files` when it stops."""

    def __init__(self, config: uvicorn.Config, close_pages: Callable[[], None], files: Path) -> None:
        super().__init__(config)
        self._close_pages = close_pages
        self._files = files

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._close_pages()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        shutil.rmtree(self._files, ignore_errors=True)  # first, in case the process is killed during the shutdown
        await super().shutdown(sockets)
        shutil.rmtree(
            self._files, ignore_errors=True
        )  # files written meanwhile; after this, the signal ends the process


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UsageError(f"Cannot listen on {host}:{port} ({error.strerror}). Choose another --port.") from None
    return listening
