import pytest

from flows.execution.stage import StageBroke, StageRejected, failure


def output(end: str, *said: str) -> list[str]:
    return [
        "Running stage 'ingest':",
        "> python -m pipeline ingest",
        *said,
        f"ERROR: failed to reproduce 'ingest': {end}",
    ]


@pytest.mark.parametrize("code", [1, 2])
def test_a_refusal_or_a_wrong_setting_is_final(code: int):
    end = f"failed to run: python -m pipeline ingest, exited with {code}"
    assert isinstance(failure("ingest", 255, output(end)), StageRejected)


@pytest.mark.parametrize("code", [-9, 70, 75, 137])
def test_a_crash_may_pass(code: int):
    end = f"failed to run: python -m pipeline ingest, exited with {code}"
    assert isinstance(failure("ingest", 255, output(end)), StageBroke)


def test_a_lock_may_pass():
    assert isinstance(failure("ingest", 255, ["ERROR: Unable to acquire lock."]), StageBroke)


@pytest.mark.parametrize(
    "end",
    [
        "missing data 'source': talks.xlsx",
        "dependency 'talks.xlsx' does not exist",
        "[Errno 2] No such file or directory: 'talks.xlsx'",
    ],
)
def test_a_missing_input_is_final_and_named(end: str):
    error = failure("ingest", 255, output(end))
    assert isinstance(error, StageRejected)
    assert "talks.xlsx" in str(error)


def test_the_message_holds_what_the_stage_said_and_nothing_of_how_it_was_run():
    error = failure("ingest", 255, output("failed to run: x, exited with 1", "Row 7 has no title."))
    assert str(error) == "ingest was refused:\n  Row 7 has no title."


@pytest.mark.parametrize("code", [1, 2])
def test_a_refusal_is_told_whole(code: int):
    said = [f"lesson_topics, row {row}: no title. Write one." for row in range(2, 202)]
    lines = str(failure("ingest", 255, output(f"failed to run: x, exited with {code}", *said))).splitlines()
    assert lines[1:] == [f"  {line}" for line in said]


def test_of_a_refusal_that_no_message_holds_it_holds_the_end_and_how_much_there_is_more():
    said = [f"line {number:04}" + " word" * 20 for number in range(9000)]
    heading, left_out, *lines = str(failure("ingest", 255, output("failed to run: x, exited with 1", *said))).split(
        "\n"
    )
    assert heading == "ingest was refused:"
    assert lines == [f"  {line}" for line in said[-len(lines) :]]
    assert left_out == f"  … {9000 - len(lines):,} more lines before these, in the log"
    assert 40_000 < len("\n".join(lines)) < 100_000  # where Prefect cuts a message in what it tells of a run


def test_of_much_that_was_said_before_a_crash_the_message_holds_the_end():
    said = [f"line {number}" for number in range(100)]
    lines = str(failure("ingest", 255, output("failed to run: x, exited with 70", *said))).splitlines()
    assert (lines[1], lines[-1], len(lines)) == ("  line 85", "  line 99", 16)
