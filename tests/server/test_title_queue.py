from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from pipeline.registry.fallback_title import Shown
from pipeline.server.title_queue import QueueFull, TitleQueue, WrittenTitles


class Writer:
    """A model whose titles are the texts. Each call waits for `go`."""

    def __init__(self) -> None:
        self.version = "titles/1"
        self.calls: list[list[str]] = []
        self.go = threading.Semaphore(0)

    def __call__(self, texts: list[str]) -> WrittenTitles:
        self.calls.append(texts)
        assert self.go.acquire(timeout=30)
        if "fail" in texts:
            raise ValueError("it failed")
        return WrittenTitles(self.version, [Shown(text, False) for text in texts])


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def queue(writer: Writer) -> Iterator[TitleQueue]:
    queue = TitleQueue(writer, waiting=3, batch=4)
    queue.open()
    yield queue
    writer.go.release(100)
    queue.close()


def _busy(queue: TitleQueue, writer: Writer, *texts: str):
    """Submit texts and wait until the worker titles them."""
    first = queue.submit(texts or ["first"])
    _until(writer, 1)
    return first


def _until(writer: Writer, calls: int) -> None:
    """Return once the model was called this many times."""
    deadline = time.monotonic() + 30
    while len(writer.calls) < calls:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_waiting_requests_are_titled_together(queue: TitleQueue, writer: Writer) -> None:
    first = _busy(queue, writer)
    jobs = [queue.submit([f"{i}a", f"{i}b"]) for i in range(3)]
    writer.go.release(3)
    assert [title.title for title in first.result(30).titles] == ["first"]
    assert [[title.title for title in job.result(30).titles] for job in jobs] == [[f"{i}a", f"{i}b"] for i in range(3)]
    assert writer.calls == [["first"], ["0a", "0b", "1a", "1b"], ["2a", "2b"]]


def test_a_full_queue_rejects_a_request_and_says_when_to_retry(queue: TitleQueue, writer: Writer) -> None:
    _busy(queue, writer)
    for _ in range(3):
        queue.submit(["a"])
    with pytest.raises(QueueFull) as full:
        queue.submit(["a"])
    assert full.value.seconds >= 1
    writer.go.release(100)


def test_a_cancelled_request_is_not_titled(queue: TitleQueue, writer: Writer) -> None:
    _busy(queue, writer)
    gone, stays = queue.submit(["gone"]), queue.submit(["stays"])
    gone.cancel()
    writer.go.release(2)
    stays.result(30)
    assert writer.calls == [["first"], ["stays"]]


def test_a_request_cancelled_during_its_batch_stops_after_that_batch(queue: TitleQueue, writer: Writer) -> None:
    gone, stays = _busy(queue, writer, *"abcdefgh"), queue.submit(["stays"])
    gone.cancel()
    writer.go.release(2)
    stays.result(30)
    assert writer.calls == [["a", "b", "c", "d"], ["stays"]]


def test_all_titles_of_a_request_are_by_one_version(queue: TitleQueue, writer: Writer) -> None:
    job = _busy(queue, writer, *"abcdef")
    writer.go.release()
    _until(writer, 2)
    writer.version = "titles/2"
    writer.go.release(3)
    assert job.result(30) == WrittenTitles("titles/2", [Shown(text, False) for text in "abcdef"])
    assert writer.calls == [["a", "b", "c", "d"], ["e", "f"]] * 2


def test_a_failure_reaches_its_request_and_the_next_one_succeeds(queue: TitleQueue, writer: Writer) -> None:
    _busy(queue, writer)
    failing = queue.submit(["fail"])
    writer.go.release(3)
    with pytest.raises(ValueError, match="it failed"):
        failing.result(30)
    assert queue.submit(["next"]).result(30).titles == [Shown("next", False)]


def test_a_request_to_a_closed_queue_is_cancelled_at_once(writer: Writer) -> None:
    queue = TitleQueue(writer, waiting=3, batch=4)
    queue.open()
    queue.close()
    with pytest.raises(CancelledError):
        queue.submit(["late"]).result(5)
