from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from pipeline.registry.fallback_title import Shown
from pipeline.server.title_queue import Answer, Desk, Full


class Writer:
    """Titles are the texts. Each call waits for `go`."""

    def __init__(self) -> None:
        self.version = "titles/1"
        self.calls: list[list[str]] = []
        self.go = threading.Semaphore(0)

    def __call__(self, texts: list[str]) -> Answer:
        self.calls.append(texts)
        assert self.go.acquire(timeout=30)
        if "fail" in texts:
            raise ValueError("it failed")
        return Answer(self.version, [Shown(text, False) for text in texts])


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def desk(writer: Writer) -> Iterator[Desk]:
    desk = Desk(writer, waiting=3, batch=4)
    desk.open()
    yield desk
    writer.go.release(100)
    desk.close()


def _busy(desk: Desk, writer: Writer, *texts: str):
    """The job that the worker is at."""
    first = desk.submit(texts or ["first"])
    _until(writer, 1)
    return first


def _until(writer: Writer, calls: int) -> None:
    """Returns once it has been called so often."""
    deadline = time.monotonic() + 30
    while len(writer.calls) < calls:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_waits_is_answered_together_and_each_gets_their_own(desk: Desk, writer: Writer) -> None:
    first = _busy(desk, writer)
    jobs = [desk.submit([f"{i}a", f"{i}b"]) for i in range(3)]
    writer.go.release(3)
    assert [title.title for title in first.result(30).titles] == ["first"]
    assert [[title.title for title in job.result(30).titles] for job in jobs] == [[f"{i}a", f"{i}b"] for i in range(3)]
    assert writer.calls == [["first"], ["0a", "0b", "1a", "1b"], ["2a", "2b"]]


def test_one_more_than_may_wait_is_turned_away_and_told_when_to_come(desk: Desk, writer: Writer) -> None:
    _busy(desk, writer)
    for _ in range(3):
        desk.submit(["a"])
    with pytest.raises(Full) as full:
        desk.submit(["a"])
    assert full.value.seconds >= 1
    writer.go.release(100)


def test_who_has_given_up_costs_nothing(desk: Desk, writer: Writer) -> None:
    _busy(desk, writer)
    gone, stays = desk.submit(["gone"]), desk.submit(["stays"])
    gone.cancel()
    writer.go.release(2)
    stays.result(30)
    assert writer.calls == [["first"], ["stays"]]


def test_of_what_is_given_up_meanwhile_no_more_than_the_part_at_hand_is_written(desk: Desk, writer: Writer) -> None:
    gone, stays = _busy(desk, writer, *"abcdefgh"), desk.submit(["stays"])
    gone.cancel()
    writer.go.release(2)
    stays.result(30)
    assert writer.calls == [["a", "b", "c", "d"], ["stays"]]


def test_all_titles_of_a_request_are_by_one_version(desk: Desk, writer: Writer) -> None:
    job = _busy(desk, writer, *"abcdef")
    writer.go.release()
    _until(writer, 2)
    writer.version = "titles/2"
    writer.go.release(3)
    assert job.result(30) == Answer("titles/2", [Shown(text, False) for text in "abcdef"])
    assert writer.calls == [["a", "b", "c", "d"], ["e", "f"]] * 2


def test_a_failure_is_told_to_those_it_concerns_and_ends_nothing(desk: Desk, writer: Writer) -> None:
    _busy(desk, writer)
    failing = desk.submit(["fail"])
    writer.go.release(3)
    with pytest.raises(ValueError, match="it failed"):
        failing.result(30)
    assert desk.submit(["next"]).result(30).titles == [Shown("next", False)]


def test_who_asks_as_it_closes_is_told_so_at_once(writer: Writer) -> None:
    desk = Desk(writer, waiting=3, batch=4)
    desk.open()
    desk.close()
    with pytest.raises(CancelledError):
        desk.submit(["late"]).result(5)
