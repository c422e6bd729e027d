"""A segmenter learns from other lessons where chapters start, and is used only if that helps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.chapters.boundary_board import BoundaryBoard, build_segmenter, too_few
from pipeline.chapters.boundary_features import describe_passages
from pipeline.chapters.boundary_scores import score_boundaries
from pipeline.chapters.divide_transcript import divide_as_served
from pipeline.chapters.segmentation import chapter_starts, split_passages
from pipeline.chapters.segmenter import WEIGHTS, ChapterLengths, Segmenter
from pipeline.errors import Rejected
from pipeline.transcripts.transcript import Line, Transcript
from tests.chapters.small import CHAPTERS, SETTINGS, lesson, talk


def built(cue: str) -> tuple[Segmenter, BoundaryBoard]:
    lessons = [lesson(seed, cue) for seed in range(12)]
    return build_segmenter(lessons[:9], lessons[9:], CHAPTERS, SETTINGS, unlearnable="", confidence=0.95)


@pytest.fixture(scope="module")
def learned() -> tuple[Segmenter, BoundaryBoard]:
    return built("okay so next")


def test_words_that_start_topics_are_learnt(learned: tuple[Segmenter, BoundaryBoard]) -> None:
    segmenter, board = learned
    assert board.method == segmenter.card.method == "learned"
    rows = {row.method: row.test for row in board.rows if row.number_given}
    assert rows["learned"]["f1_30s"].mean > rows["content vectors"]["f1_30s"].mean + 0.2
    assert list(rows) == ["learned", "content vectors", "even spacing", "random"]
    assert board.difference.low > 0
    assert "agrees with the topics better than content vectors do" in board.summary


def test_content_vectors_stay_in_use_where_nothing_is_learnt() -> None:
    segmenter, board = built(cue="the loss of")
    assert segmenter.weights is None
    assert board.method == "content vectors"
    assert "a learned segmenter does not beat them with confidence" in board.summary


def test_too_few_lessons_teach_nothing() -> None:
    reason = too_few(3, SETTINGS)
    segmenter, board = build_segmenter([], [lesson(1)], CHAPTERS, SETTINGS, unlearnable=reason, confidence=0.95)
    assert segmenter.weights is None
    assert board.reason == "3 lessons with topics to learn from, and 8 are needed"
    assert {row.method for row in board.rows} == {"content vectors", "even spacing", "random"}


def test_a_saved_segmenter_finds_the_same_chapters(learned: tuple[Segmenter, BoundaryBoard], tmp_path: Path) -> None:
    segmenter, _ = learned
    segmenter.save(tmp_path)
    again = Segmenter.load(tmp_path)
    assert again.card == segmenter.card
    features = lesson(20).features
    assert (again.weights.log_odds(features) == segmenter.weights.log_odds(features)).all()
    (tmp_path / WEIGHTS).write_bytes(b"junk")
    with pytest.raises(Rejected, match="is not a segmenter"):
        Segmenter.load(tmp_path)


def test_a_learned_segmenter_divides_a_talk(learned: tuple[Segmenter, BoundaryBoard]) -> None:
    segmenter, made = learned[0], talk(30)
    starts = chapter_starts(made, CHAPTERS, 6, segmenter)
    assert len(starts) == 6
    assert score_boundaries(made, starts[1:]).f1_30s > 0.7


@pytest.mark.parametrize(("course", "minutes", "chapters"), [("X", None, 3), ("C", None, 6), ("C", 1.0, 10)])
def test_a_course_keeps_its_usual_length_unless_one_is_given(
    course: str, minutes: float | None, chapters: int, learned: tuple[Segmenter, BoundaryBoard]
) -> None:
    lengths = ChapterLengths(minutes=3.5, by_course={"C": 1.7})
    card = learned[0].card.model_copy(update={"lengths": lengths})
    settings = CHAPTERS.model_copy(update={"minutes": minutes})
    assert len(chapter_starts(talk(1, course=course), settings, segmenter=replace(learned[0], card=card))) == chapters


def test_more_chapters_than_the_usual_spacing_allows_are_found(learned: tuple[Segmenter, BoundaryBoard]) -> None:
    starts = chapter_starts(talk(2), CHAPTERS, 60, learned[0])
    assert len(starts) == 60
    assert all(after - before == 10 for before, after in pairwise(starts))


def test_a_version_cuts_with_the_values_that_it_was_measured_with(
    learned: tuple[Segmenter, BoundaryBoard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = CHAPTERS.model_copy(update={"words": 50, "shortest": 90.0})
    assert chapter_starts(talk(2), changed, 60, learned[0]) == chapter_starts(talk(2), CHAPTERS, 60, learned[0])
    served = chapter_starts(talk(2), changed, segmenter=learned[0])
    measured = divide_as_served(talk(2), learned[0]).chapters
    assert served == [chapter.start_seconds for chapter in measured]


def test_a_change_of_speaker_and_a_pause_are_measured() -> None:
    lines = [Line(5.0 * n + (60 if n >= 6 else 0), "word " * 25, "Ada" if n < 6 else "Bo") for n in range(12)]
    made = Transcript("C", "1", [line._replace(text=line.text.strip()) for line in lines], 130.0)
    passages = split_passages(made, 25)
    times = np.append(passages.starts, made.end_seconds)
    measures = describe_passages(made, passages, np.eye(12), times).measures
    assert measures[:, -2:].argmax(axis=0).tolist() == [6, 6]
