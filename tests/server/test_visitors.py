from __future__ import annotations

from pipeline.server.visitors import AnswerStreams


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_call_is_wanted_while_somebody_listens_and_shortly_after() -> None:
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


def test_a_program_has_a_while_to_ask_for_the_answer() -> None:
    clock = Clock()
    wanted = AnswerStreams(clock).waiting_for("call")
    clock.now += 20
    assert wanted()
    clock.now += 20
    assert not wanted()


def test_who_left_before_the_work_began_is_not_worked_for() -> None:
    clock = Clock()
    streams = AnswerStreams(clock)
    with streams.listening("session"):
        pass
    clock.now += 600
    wanted = streams.waiting_for("session")
    clock.now += 3
    assert not wanted()


def test_a_stream_of_an_earlier_call_does_not_count_as_leaving() -> None:
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
        streams.expect("session")  # for a third call
    clock.now += 3
    assert not wanted(), "this stream closed after the second call was made"


def test_an_answer_that_is_expected_again_is_remembered_longest() -> None:
    streams = AnswerStreams()
    for stream in ("first", "second", "first"):
        streams.expect(stream)
    for number in range(9_999):
        streams.expect(str(number))
    assert streams.is_expected("first")
    assert not streams.is_expected("second")
