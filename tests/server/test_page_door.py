"""Calls of the page as programs send them, well-formed or not: what they reach, and what they are told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from pipeline.registry.stand_in import Shown
from pipeline.server.app import create_app
from pipeline.server.chapters_api import add_chapters
from pipeline.server.desk import Desk
from pipeline.server.editor import Editor
from pipeline.server.present import Present
from pipeline.server.settings import PageSettings, ServeSettings
from pipeline.titles.version import Version
from tests.conftest import ROOT
from tests.server.served import PATIENCE, THREE, write_talk

SETTINGS = ServeSettings(texts=4, megabytes=1, seconds=60, waiting=8, batch=1, refresh=0.1)
PAGE = PageSettings(words=5000, chapters=20, corrections=Path("corrections"))
TABLE = {"headers": ["time", "title"], "data": [["0:00", "Bread"]]}
LONG = "\n".join(f"{int(seconds) // 60}:{int(seconds) % 60:02} {words}" for seconds, words in THREE.lines)


class Writer:
    """Titles are `a title`. Each call waits while `held`."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.going = threading.Event()
        self.going.set()

    def __call__(self, texts: list[str]) -> list[Shown]:
        self.written += texts
        assert self.going.wait(PATIENCE)
        return [Shown("a title", False) for _ in texts]


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer()


@pytest.fixture(scope="module")
def address(writer: Writer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a page with a model that always writes the same."""
    folder = tmp_path_factory.mktemp("files")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.chdir(ROOT)  # for the shipped settings
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        from pipeline.server.page import mount_page

        present = Present(lambda: Version("titles", "1", "1"), lambda _: writer, refresh=0.1)
        desk = Desk(present.write, waiting=SETTINGS.waiting, batch=SETTINGS.batch)
        app, editor = create_app(present, desk, SETTINGS), Editor(desk, present, SETTINGS, PAGE, folder)
        add_chapters(app, editor, SETTINGS)
        let_go = mount_page(app, editor, present, SETTINGS)
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


@pytest.fixture
def visitor(address: str) -> Iterator[httpx.Client]:
    """Somebody with the page open, and a cookie of it."""
    with httpx.Client(base_url=f"{address}/page", timeout=PATIENCE) as client:
        assert client.get("/").status_code == 200
        yield client


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def upload(visitor: httpx.Client, path: Path) -> str:
    """Where an uploaded file is, on the server."""
    (at,) = visitor.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()
    return at


def file_at(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(visitor: httpx.Client, name: str, *data: Any, **more: Any) -> httpx.Response:
    return visitor.post(f"/gradio_api/call/{name}", json={"data": data, **more})


def answer(visitor: httpx.Client, name: str, *data: Any, **more: Any) -> list[Any]:
    """What a call that is taken is answered, as a program fetches it."""
    taken = call(visitor, name, *data, **more)
    assert taken.status_code == 200, taken.text
    events = visitor.get(f"/gradio_api/call/{name}/{taken.json()['event_id']}").text
    assert "event: complete" in events, events
    return json.loads(events.rpartition("event: complete\ndata: ")[2].split("\n")[0])


def test_a_file_is_read_by_its_visitor(visitor: httpx.Client, tmp_path: Path) -> None:
    said, *_ = answer(visitor, "read", file_at(upload(visitor, write_talk(tmp_path / "talk.vtt"))))
    assert "36 lines are read" in said
