"""Chapters that people correct on the page teach the segmenter where chapters start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import geometric_mean

import pandas as pd
import pytest
from dvc.repo import Repo

from pipeline.chapters.segmenter import Segmenter
from pipeline.models.seen_examples import are_among
from pipeline.paths import BOUNDARIES, SEGMENTER, TOPICS, TRAINING_SPLITS
from pipeline.settings import set_params
from pipeline.stages import ingest, merge, segment, split
from tests.command import lectern
from tests.conftest import ROOT
from tests.server.page_server import PAGE, TABLE, Writer, answer, new_visitor, page_server
from tests.server.running_server import AS_TEXT
from tests.titles.small import write_book

LESSONS = ("1", "2", "3", "4")
FOUND = ["0:00", "0:36", "1:12", "1:48", "2:24", "3:00"]
CORRECTED = ["0:00", "1:00", "2:24", "3:06"]  # moved, deleted and added boundaries
SESSION = {"session_hash": "one"}


@pytest.mark.slow
def test_boundaries_that_are_moved_added_and_deleted_on_the_page_train_the_segmenter(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "expectations", project / "expectations")
    lines = [tuple(line.split(" ", 1)) for line in AS_TEXT.splitlines()]
    write_book(
        project / "week.xlsx",
        [("C", lesson, f"0:{time}", f"Found {time}") for lesson in LESSONS for time in FOUND],
        [("C", lesson, f"0:{time}", f"{words} in {lesson}") for lesson in LESSONS for time, words in lines],
    )
    with page_server(Writer(), project) as address, new_visitor(address) as visitor:
        for lesson in LESSONS:
            talk = "\n".join(f"{line} in {lesson}" for line in AS_TEXT.splitlines())
            answer(visitor, "chapters", talk, None, 0, **SESSION)
            rows = [[time, f"Corrected {time}"] for time in CORRECTED]
            (said,) = answer(visitor, "save", {**TABLE, "data": rows}, "C", lesson, False, **SESSION)
            assert "lectern use" in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    with Repo.init(no_scm=True):
        pass
    corrected = sorted((project / PAGE.corrections).glob("*.xlsx"))
    done = lectern("use", "week.xlsx", *corrected, cwd=project)
    assert done.returncode == 0, done.stderr
    set_params(["segment"], {"lessons": 2, "folds": 2})
    for stage in (ingest, merge, split, segment):
        stage.run()
    card = Segmenter.load(SEGMENTER).card
    train = pd.concat([pd.read_parquet(path) for path in TRAINING_SPLITS.values()])
    assert card.lessons == train["lesson_num"].nunique() >= 2
    assert sorted(set(train["start_seconds"])) == [0, 60, 144, 186]
    assert are_among(train, Segmenter.load(SEGMENTER).seen.train).all()
    # The average length of a chapter, which is a quarter longer than people's, is that of four chapters, not of six.
    ends = pd.read_parquet("data/interim/lines.parquet").groupby("lesson_num")["seconds"].max()
    assert len(pd.read_parquet(TOPICS)) == len(LESSONS) * len(CORRECTED)
    length = geometric_mean(ends[lesson] / 60 / len(CORRECTED) for lesson in set(train["lesson_num"]))
    assert card.lengths.minutes == pytest.approx(1.25 * length, rel=0.05)  # the end of the last line is estimated
    board = json.loads(BOUNDARIES.read_text(encoding="utf-8"))
    assert board["validation_lessons"] == card.lessons
