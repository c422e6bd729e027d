"""The stage `segment` learns from the topics in the workbook's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from pipeline.chapters.segmenter import Segmenter
from pipeline.data.sample_workbook import COURSES
from pipeline.paths import LINES, SEGMENTER, SPLITS, STAGE_METRICS, TOPICS
from pipeline.settings import set_params
from pipeline.stages import segment
from pipeline.transcripts.transcript import Transcript
from tests.chapters.small import talk


def write_tables(talks: Sequence[Transcript], test: int) -> None:
    """Write the tables of lessons, and splits of which the last `test` lessons are the test split."""
    topics = pd.DataFrame(
        [(each.course_title, each.lesson_num, *topic) for each in talks for topic in each.topics],
        columns=["course_title", "lesson_num", "start_seconds", "title"],
    )
    lines = pd.DataFrame(
        [(each.course_title, each.lesson_num, line.seconds, line.text) for each in talks for line in each.lines],
        columns=["course_title", "lesson_num", "seconds", "text"],
    )
    for path, table in ((TOPICS, topics), (LINES, lines.assign(row=range(len(lines))))):
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path)
    SPLITS.mkdir(parents=True, exist_ok=True)
    examples = topics.assign(text="words")
    is_test = examples["lesson_num"].isin([each.lesson_num for each in talks[-test:]])
    for name, rows in (("train", ~is_test), ("validation", is_test & ~is_test), ("test", is_test)):
        examples[rows].to_parquet(SPLITS / f"{name}.parquet")


def test_a_changed_topic_changes_what_is_learnt(project: Path) -> None:
    talks = [talk(seed) for seed in range(4)]
    set_params(["segment"], {"lessons": 3, "folds": 3})
    write_tables(talks, test=1)
    segment.run()
    before = Segmenter.load(SEGMENTER)
    del talks[0].topics[1:4]
    write_tables(talks, test=1)
    segment.run()
    after = Segmenter.load(SEGMENTER)
    assert (before.card.lessons, after.card.lessons) == (3, 3)
    assert after.card.lengths.minutes == pytest.approx(before.card.lengths.minutes * 2 ** (1 / 3), rel=0.01)
    assert set(after.seen.train) < set(before.seen.train)
    assert 0 <= json.loads((STAGE_METRICS / "segment.json").read_text())["test"]["f1_30s"] <= 1


def test_invented_times_of_the_embedded_workbook_teach_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded = next(iter(COURSES))
    set_params(["segment"], {"lessons": 2})
    write_tables([talk(seed, course=embedded) for seed in range(3)], test=1)
    segment.run()
    assert "the embedded workbook is written text with invented times" in capsys.readouterr().out
    write_tables([*(talk(seed, course=embedded) for seed in range(3)), *(talk(seed) for seed in range(3, 6))], test=1)
    segment.run()
    card = Segmenter.load(SEGMENTER).card
    assert (card.lessons, [*card.lengths.by_course]) == (2, ["C"])
