"""POST /chapters with a model that is slow or fails."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.registry.fallback_title import Shown
from pipeline.server.chapter_editor import ChapterEditor
from pipeline.server.chapters_api import add_chapters_api
from pipeline.server.settings import PageSettings, ServeSettings
from pipeline.server.title_queue import TitleQueue
from pipeline.server.titles_api import create_app
from pipeline.server.version_watcher import VersionWatcher
from pipeline.settings import set_params
from pipeline.titles.served_version import ServedVersion
from tests.conftest import ROOT
from tests.server.running_server import AS_TEXT

SECONDS = 6
SHORT = "0:00 so now we begin\n0:30 and this is the end"


class Writer:
    """A model whose titles name the served version, which a test can change."""

    def __init__(self) -> None:
        self.number = "1"
        self.written = 0
        self.seconds = 0.0  # for each batch
        self.fails = False
        self.one_title = ""  # for all texts, instead; a second candidate is a word of the text
        self.ending = threading.Event()

    def version(self) -> ServedVersion:
        return ServedVersion("titles", self.number, self.number)

    def write(self, number: str, texts: list[str]) -> list[Shown]:
        self.ending.wait(self.seconds)
        if self.fails:
            raise ValueError("a secret of the model's")
        self.written += len(texts)
        if self.one_title:
            subjects = [next(word for word in ("dough", "telescope", "striker") if word in text) for text in texts]
            return [Shown(self.one_title, False, [self.one_title, subject]) for subject in subjects]
        return [Shown(f"title {self.written - n} by {number}", False) for n, _ in enumerate(texts)]


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def client(writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.chdir(ROOT)  # for the shipped settings
    settings = ServeSettings(texts=2, megabytes=1, seconds=SECONDS, waiting=2, batch=1, refresh=0.1)
    page = PageSettings(words=1000, chapters=20, corrections=Path("corrections"))
    watcher = VersionWatcher(writer.version, lambda version: partial(writer.write, version.number), refresh=0.1)
    queue = TitleQueue(watcher.write_titles, waiting=settings.waiting, batch=settings.batch)
    app, editor = create_app(watcher, queue, settings), ChapterEditor(queue, watcher, settings, page, tmp_path)
    add_chapters_api(app, editor, settings)
    divide_transcript(
        editor.read_pasted(AS_TEXT), ChaptersSettings.read()
    )  # the first transcript loads the encoder, which takes seconds
    with TestClient(app) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client
        writer.ending.set()


def _ask(client: TestClient, transcript: str, **more: object):
    return client.post("/chapters", json={"transcript": transcript, **more})


@pytest.mark.slow
def test_a_slow_transcript_times_out_and_the_next_is_served(client: TestClient, writer: Writer) -> None:
    assert len(_ask(client, AS_TEXT).json()["chapters"]) == 3
    writer.seconds, writer.written = 0.7 * SECONDS, 0
    start = time.monotonic()
    with ThreadPoolExecutor(2) as both:
        late = list(both.map(lambda _: _ask(client, AS_TEXT), range(2)))
    assert [answer.status_code for answer in late] == [504, 504]
    assert all(f"within {SECONDS} s" in answer.json()["detail"] for answer in late)
    assert time.monotonic() - start < 1.7 * SECONDS, "one waited for the other"
    writer.seconds = 0
    assert _ask(client, SHORT).json()["chapters"][0]["title"].endswith("by 1")
    assert writer.written < 4, "it went on with what nobody waits for"


def test_all_titles_of_a_transcript_are_by_the_named_version(client: TestClient, writer: Writer) -> None:
    writer.seconds = 0.4
    with ThreadPoolExecutor(1) as asking:
        asked = asking.submit(_ask, client, AS_TEXT)
        while not writer.written:
            time.sleep(0.01)
        writer.number = "2"
        answer = asked.result().json()
    assert answer["version"] == "titles/2"
    titles = [chapter["title"] for chapter in answer["chapters"]]
    assert (len(set(titles)), all(title.endswith("by 2") for title in titles)) == (3, True)


def test_titles_are_chosen_together_and_chapters_that_the_model_cannot_tell_apart_are_merged(
    client: TestClient, writer: Writer
) -> None:
    writer.one_title = "welcome"
    chapters = _ask(client, AS_TEXT, minutes=0.6).json()["chapters"]  # two for each subject
    titles = [each["title"] for each in chapters]
    assert (titles[0], len(set(titles)), 3 <= len(titles) < 6) == ("welcome", len(titles), True)
    assert not any(each["fallback"] for each in chapters)
    assert [each["end_seconds"] for each in chapters[:-1]] == [each["start_seconds"] for each in chapters[1:]]


def test_a_failed_model_is_a_server_error(client: TestClient, writer: Writer) -> None:
    writer.fails = True
    failed = _ask(client, SHORT)
    assert (failed.status_code, "secret" in failed.text) == (500, False)


def test_a_missing_encoder_is_a_server_error(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    set_params(["chapters"], {"encoder": "package:nowhere/model"}, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    failed = _ask(client, AS_TEXT)
    assert (failed.status_code, "package:nowhere/model" in failed.json()["detail"]) == (500, True)


@pytest.mark.slow
@pytest.mark.parametrize("minutes", ["NaN", "Infinity", "1e-320", "0"])
def test_invalid_minutes_are_refused(minutes: str, client: TestClient) -> None:
    body = f'{{"transcript": "0:00 so now we begin", "minutes": {minutes}}}'
    refused = client.post("/chapters", content=body, headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "minutes"])
