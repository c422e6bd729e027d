from __future__ import annotations

from pipeline.server.visitors import AnswerStreams


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_visitor_waits_while_a_stream_is_open_and_shortly_after() -> None:
    clock = Clock()
    streams = AnswerStreams(clock)
    wanted = streams.waiting_for("session", "call")
    with streams.listening("session"), streams.listening("session"):
        clock.now += 600
        assert wanted()
    clock.now += 1
    assert wanted(), "a page may be opening its next stream"
    with streams.listening("call"):
        clock.now += 600
        assert wanted()
    clock.now += 3
    assert not wanted()


def test_a_program_has_time_to_request_the_answer() -> None:
    clock = Clock()
    wanted = AnswerStreams(clock).waiting_for("call")
    clock.now += 20
    assert wanted()
    clock.now += 20
    assert not wanted()


def test_a_visitor_who_left_before_the_work_started_does_not_wait() -> None:
    clock = Clock()
    streams = AnswerStreams(clock)
    with streams.listening("session"):
        pass
    clock.now += 600
    wanted = streams.waiting_for("session")
    clock.now += 3
    assert not wanted()


def test_the_end_of_an_earlier_stream_does_not_count_as_leaving() -> None:
    clock = Clock()
    streams = AnswerStreams(clock)
    streams.expect("session")
    with streams.listening("session"):
        clock.now += 5
    clock.now += 5
    for stream in ("second call", "session"):
        streams.expect(stream)
    wanted = streams.waiting_for("session", "second call")
    clock.now += 20
    assert wanted(), "its stream may open yet"
    with streams.listening("session"):
        clock.now += 600
        streams.expect("session")  # a third call
    clock.now += 3
    assert not wanted(), "this stream closed after the second call was made"


def test_the_latest_calls_are_remembered() -> None:
    streams = AnswerStreams()
    for stream in ("first", "second", "first"):
        streams.expect(stream)
    for number in range(9_999):
        streams.expect(str(number))
    assert streams.is_expected("first")
    assert not streams.is_expected("second")
