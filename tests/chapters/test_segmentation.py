from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.chapters.segmentation import ChaptersSettings, best_cuts, chapter_starts, split_passages
from pipeline.errors import UsageError
from pipeline.transcripts.transcript import Line, Transcript
from tests.conftest import ROOT

SETTINGS = ChaptersSettings.read(ROOT / "params.yaml")
SUBJECTS = {
    "bread": "knead the dough with flour and yeast and let it rise before it is baked in the oven",
    "stars": "the telescope shows distant galaxies and planets that orbit bright stars in space",
    "goals": "the striker passed the ball to the winger who scored a goal for the football team",
}


def transcript_about(*subjects: str, lines: int = 12, seconds: float = 6.0) -> Transcript:
    """Make a transcript with `lines` lines about each subject in turn."""
    said = [f"{SUBJECTS[subject]} {n}" for subject in subjects for n in range(lines)]
    return Transcript("C", "1", [Line(n * seconds, text) for n, text in enumerate(said)], len(said) * seconds)


def test_chapters_start_where_the_subject_changes() -> None:
    starts = chapter_starts(transcript_about("bread", "stars", "goals"), SETTINGS, count=3)
    assert starts == pytest.approx([0, 72, 144], abs=12)


def test_the_average_length_sets_the_count_with_a_minimum_of_three() -> None:
    talk = transcript_about("bread", "stars", "goals", "bread")
    assert len(chapter_starts(talk, SETTINGS.model_copy(update={"minutes": 0.8}))) == 6
    assert len(chapter_starts(talk, SETTINGS)) == 3


def test_too_many_chapters_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="Use --count 3 or less"):
        chapter_starts(transcript_about("bread", "stars", lines=3), SETTINGS, count=9)


def test_a_transcript_of_one_line_is_one_chapter() -> None:
    assert chapter_starts(Transcript("C", "1", [Line(3.0, "hi")], 4.0), SETTINGS) == [0.0]


def test_the_best_cut_is_found() -> None:
    east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    vectors = np.array([east, east, north, north, north, east])
    assert best_cuts(vectors, np.arange(7.0), 3, shortest=1) == [2, 5]
    assert best_cuts(vectors, np.arange(7.0), 2, shortest=1) in ([2], [5])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_chapters_are_in_order_and_none_is_too_short(data: st.DataObject) -> None:
    vectors = data.draw(
        arrays(np.float32, st.tuples(st.integers(1, 12), st.just(3)), elements=st.floats(-1, 1, width=32))
    )
    steps = data.draw(arrays(float, len(vectors), elements=st.integers(1, 30).map(float)))
    times = np.concatenate([[0.0], np.cumsum(steps)])
    count, shortest = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 40))
    ends = [0, *best_cuts(vectors, times, count, shortest), len(vectors)]
    assert len(ends) - 1 <= count
    if len(ends) > 2:
        assert (np.diff(times[ends]) >= shortest).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 300), st.integers(1, 30)), min_size=1, max_size=40), st.integers(1, 40))
def test_passages_have_every_word_once_and_different_seconds(said: list, words: int) -> None:
    lines = [Line(seconds, " ".join(["word"] * count)) for seconds, count in sorted(said)]
    passages = split_passages(Transcript("C", "1", lines, lines[-1].seconds + 1), words)
    assert " ".join(passages.texts) == " ".join(line.text for line in lines)
    assert passages.starts[0] == 0
    assert (np.diff(passages.starts) > 0).all()
    # Read back from whole seconds, each line is in the same passage.
    again = np.searchsorted(passages.starts, [line.seconds for line in lines], side="right") - 1
    assert again.tolist() == (np.searchsorted(passages.firsts, range(len(lines)), side="right") - 1).tolist()


UNSPACED = {
    "bread": "把面粉和酵母揉成面团让面团发酵再放进烤箱烤成面包",
    "stars": "望远镜让我们看到遥远的星系和围绕恒星运行的行星",
    "goals": "前锋把足球传给边锋边锋为球队踢进了关键的一球",
    "plants": "给植物浇水换盆修剪叶子把花盆放在有阳光的窗台",
}


def test_text_without_spaces_is_divided_as_finely_as_text_with_spaces() -> None:
    said = [f"{text}{n}" for text in UNSPACED.values() for n in range(15)]
    talk = Transcript("C", "1", [Line(n * 10.0, text) for n, text in enumerate(said)], 600.0)
    assert chapter_starts(talk, SETTINGS, count=4) == pytest.approx([0, 150, 300, 450], abs=20)
    assert len(chapter_starts(talk, SETTINGS, count=8)) == 8
