from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chapters.sentence_starts import sentence_starts
from pipeline.transcripts.transcript import Line, Transcript


def talk(*said: str | tuple[str, str], seconds: float = 5.0) -> Transcript:
    """Make a transcript of lines, each a text or a speaker and a text, one every few seconds."""
    spoken = [("", each) if isinstance(each, str) else each for each in said]
    lines = [Line(n * seconds, text, speaker) for n, (speaker, text) in enumerate(spoken)]
    return Transcript("C", "1", lines, len(lines) * seconds)


def start(transcript: Transcript, boundary: int, *, words: int = 12, shortest: float = 1) -> float:
    (found,) = sentence_starts(transcript, [boundary], words, shortest)
    return found


SAID = ["one two three", "four five six", "seven eight nine.", "ten eleven twelve", "so it goes on", "and on"]


@pytest.mark.parametrize("boundary", [1, 2, 3, 4, 5])
def test_a_boundary_moves_to_the_nearest_line_that_begins_a_sentence(boundary: int) -> None:
    assert start(talk(*SAID), boundary) == 15


@pytest.mark.parametrize("end", ["?", "!", "…", '."', ".)", "。"])
def test_sentences_end_in_many_ways(end: str) -> None:
    assert start(talk("one", "two", f"three{end}", "four", "five"), 2) == 15


def test_a_change_of_speaker_begins_a_sentence() -> None:
    assert start(talk(("Ana", "one"), ("Ana", "two"), ("Ben", "three"), ("Ben", "four")), 3) == 10


def test_a_sentence_that_is_too_far_away_does_not_count() -> None:
    assert start(talk(*SAID), 5, words=5) == 20  # after the longest pause


def test_without_sentences_a_boundary_moves_to_the_longest_pause() -> None:
    lines = [Line(seconds, "two words") for seconds in (0.0, 2.0, 4.0, 9.0, 11.0, 13.0)]
    assert start(Transcript("C", "1", lines, 15.0), 2) == 9
    assert start(Transcript("C", "1", lines, 15.0), 4) == 9
    assert start(talk("one", "two", "three", "four"), 2) == 10


def test_a_chapter_stays_long_enough() -> None:
    said = ["one.", "two", "three", "four.", "five", "six"]
    assert sentence_starts(talk(*said), [2, 4], 12, 10) == [10, 20]
    assert sentence_starts(talk(*said), [2, 4], 12, 5) == [5, 20]
    assert start(talk(*said), 5, shortest=10) == 20


LINES = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 9), st.booleans()), min_size=2, max_size=30
)  # seconds since the line before, words, whether a sentence ends


@given(LINES, st.integers(0, 40), st.integers(1, 30), st.data())
def test_chapters_stay_in_order_long_enough_and_begin_in_a_second_of_their_own(
    spoken: list[tuple[int, int, bool]], words: int, shortest: int, data: st.DataObject
) -> None:
    seconds, lines = 0.0, []
    for gap, count, ends in spoken:
        seconds += gap / 2
        lines.append(Line(seconds, " ".join(["word"] * count) + "." * ends))
    transcript = Transcript("C", "1", lines, seconds + 1)
    boundaries, before = [], 0
    for n in data.draw(st.lists(st.integers(1, len(lines) - 1), unique=True).map(sorted)):
        begins = int(lines[n].seconds)
        if begins > int(lines[n - 1].seconds) and before + shortest <= begins <= transcript.end_seconds - shortest:
            boundaries.append(n)
            before = begins
    starts = sentence_starts(transcript, boundaries, words, shortest)
    assert len(starts) == len(boundaries)
    ends = [0.0, *starts, transcript.end_seconds]
    assert all(after - before >= shortest for before, after in pairwise(ends)) or not starts
    assert {*starts} <= {int(line.seconds) for line in lines}
