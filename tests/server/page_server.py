"""A server with the page whose model writes at once, and calls of the page's functions as programs make them."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from pipeline.registry.fallback_title import Shown
from pipeline.server.chapter_editor import ChapterEditor
from pipeline.server.chapters_api import add_chapters_api
from pipeline.server.settings import PageSettings, ServeSettings
from pipeline.server.title_queue import TitleQueue
from pipeline.server.titles_api import create_app
from pipeline.server.version_watcher import VersionWatcher
from pipeline.titles.served_version import ServedVersion
from tests.conftest import ROOT
from tests.server.running_server import PATIENCE

SETTINGS = ServeSettings(texts=4, megabytes=1, seconds=60, waiting=8, batch=1, refresh=0.1)
PAGE = PageSettings(words=5000, chapters=20, corrections=Path("my corrections"))
TABLE = {"headers": ["time", "title"], "data": [["0:00", "Bread"]]}


class Writer:
    """A model whose titles name the number of the text. It waits while `going` is cleared.

    no_title_for: a word of the texts for which the title is a keyphrase, because the model writes nothing.
    one_title: the title of all texts, instead.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.no_title_for = "no such word"
        self.one_title = ""
        self.going = threading.Event()
        self.going.set()

    def __call__(self, texts: list[str]) -> list[Shown]:
        self.written += texts
        assert self.going.wait(PATIENCE)
        if self.one_title:
            return [Shown(self.one_title, False)] * len(texts)
        return [
            Shown("a keyphrase", True) if self.no_title_for in text else Shown(f"title {len(self.written) - n}", False)
            for n, text in enumerate(texts)
        ]


@contextmanager
def page_server(writer: Writer, folder: Path) -> Iterator[str]:
    """Serve the page of a project in `folder`, with the shipped settings. Yields the server's address."""
    with pytest.MonkeyPatch.context() as patch:
        shutil.copy(ROOT / "params.yaml", folder)
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        from pipeline.server.page import mount_page

        watcher = VersionWatcher(lambda: ServedVersion("titles", "1", "1"), lambda _: writer, refresh=0.1)
        queue = TitleQueue(watcher.write_titles, waiting=SETTINGS.waiting, batch=SETTINGS.batch)
        app, editor = create_app(watcher, queue, SETTINGS), ChapterEditor(queue, watcher, SETTINGS, PAGE, folder)
        add_chapters_api(app, editor, SETTINGS)
        let_go = mount_page(app, editor, watcher, SETTINGS)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        wait_until(lambda: server.started)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        wait_until(lambda: httpx.get(f"{address}/health").status_code == 200)
        yield address
        writer.going.set()
        let_go()
        server.should_exit = True
        thread.join(PATIENCE)


@contextmanager
def new_visitor(address: str) -> Iterator[httpx.Client]:
    """A client with a cookie of the page."""
    with httpx.Client(base_url=f"{address}/page", timeout=PATIENCE) as client:
        assert client.get("/").status_code == 200
        yield client


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def upload(visitor: httpx.Client, path: Path) -> str:
    """Upload a file. Return its path on the server."""
    (at,) = visitor.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()
    return at


def file_at(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(visitor: httpx.Client, name: str, *data: Any, **more: Any) -> httpx.Response:
    return visitor.post(f"/gradio_api/call/{name}", json={"data": data, **more})


def answer(visitor: httpx.Client, name: str, *data: Any, **more: Any) -> list[Any]:
    """Call a function and return its answer, as a program does."""
    taken = call(visitor, name, *data, **more)
    assert taken.status_code == 200, taken.text
    events = visitor.get(f"/gradio_api/call/{name}/{taken.json()['event_id']}").text
    assert "event: complete" in events, events
    return json.loads(events.rpartition("event: complete\ndata: ")[2].split("\n")[0])
