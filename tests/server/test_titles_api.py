"""POST /titles with requests that are slow, invalid or fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from pipeline.errors import TemporaryFailure
from pipeline.registry.fallback_title import Shown
from pipeline.server.request_limits import BodyLimit
from pipeline.server.settings import ServeSettings
from pipeline.server.title_queue import TitleQueue
from pipeline.server.titles_api import create_app
from pipeline.server.version_watcher import VersionWatcher
from pipeline.titles.served_version import ServedVersion

SETTINGS = ServeSettings(texts=2, megabytes=0.001, seconds=1, waiting=2, batch=1, refresh=0.1)


@pytest.fixture
def go() -> threading.Event:
    """Lets the model title the text `slow`, which it waits with."""
    return threading.Event()


@pytest.fixture
def written() -> list[str]:
    """The texts that the model got."""
    return []


@pytest.fixture
def client(go: threading.Event, written: list[str]) -> Iterator[TestClient]:
    def write(texts: list[str]) -> list[Shown]:
        written.extend(texts)
        if "slow" in texts:
            go.wait(30)
        if "fail" in texts:
            raise ValueError("a secret of the model's")
        return [Shown(text, False) for text in texts]

    watcher = VersionWatcher(lambda: ServedVersion("titles", "1", "1"), lambda _: write, refresh=0.1)
    queue = TitleQueue(watcher.write_titles, waiting=SETTINGS.waiting, batch=SETTINGS.batch)
    with TestClient(create_app(watcher, queue, SETTINGS)) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client
        go.set()


def _ask(client: TestClient, *texts: str):
    return client.post("/titles", json={"texts": texts})


def test_a_slow_request_times_out_and_the_next_is_served(client: TestClient, go: threading.Event) -> None:
    late = _ask(client, "slow")
    assert (late.status_code, "within 1 s" in late.json()["detail"]) == (504, True)
    go.set()
    assert _ask(client, "b").json() == {"version": "titles/1", "titles": [{"title": "b", "fallback": False}]}


def test_a_request_that_timed_out_is_not_titled_any_further(
    client: TestClient, go: threading.Event, written: list[str]
) -> None:
    assert _ask(client, "slow", "rest").status_code == 504
    go.set()
    assert _ask(client, "b").status_code == 200
    assert written == ["slow", "b"]


def test_the_answer_to_a_failed_request_hides_the_details(client: TestClient) -> None:
    failed = _ask(client, "fail")
    assert (failed.status_code, "secret" in failed.text) == (500, False)
    assert _ask(client, "b").status_code == 200


@pytest.mark.parametrize(
    "body", ['{"texts": ["\\ud800"]}', '{"texts": [NaN]}', f'{{"texts": ["{"a" * 900}", "b", "c"]}}']
)
def test_an_invalid_text_is_refused_and_not_repeated(body: str, client: TestClient) -> None:
    refused = client.post("/titles", content=body, headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["detail"][0]["loc"][:2]) == (422, ["body", "texts"])
    assert len(refused.content) < 300


def test_an_unknown_field_is_named_by_its_beginning(client: TestClient) -> None:
    refused = client.post("/titles", json={"texts": ["a"], "many" * 100: 1})
    assert refused.json()["detail"][0]["loc"][1].startswith("manymany")
    assert len(refused.content) < 300


def test_health_hides_the_password_of_the_registry() -> None:
    def away() -> ServedVersion:
        raise TemporaryFailure("postgresql://lectern:swordfish@db.example/mlflow does not answer")

    watcher = VersionWatcher(away, lambda _: None, refresh=0.1)
    queue = TitleQueue(watcher.write_titles, waiting=1, batch=1)
    with TestClient(create_app(watcher, queue, SETTINGS)) as client:
        while not (problem := client.get("/health").json()["problem"]):
            pass
    assert problem == "postgresql://lectern:***@db.example/mlflow does not answer"


def test_the_api_is_described(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    assert client.get("/openapi.json").json()["paths"].keys() == {"/titles", "/health"}


def test_a_body_that_arrives_slowly_times_out() -> None:
    sent = []

    async def receive():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message):
        sent.append(message)

    limited = BodyLimit(lambda *_: pytest.fail("it was let through"), most=10**9, seconds=0.1, together=10**9)
    asyncio.run(limited({"type": "http", "method": "POST", "headers": []}, receive, send))
    assert sent[0]["status"] == 408
