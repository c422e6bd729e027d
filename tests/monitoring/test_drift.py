"""Drift from the training split: laws of the comparison, the command and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.workbook import read_untitled
from pipeline.errors import UsageError
from pipeline.inbox.title_inbox import title_inbox
from pipeline.monitoring.batch_log import BATCHES, days_ago, log_batch, read_batches
from pipeline.monitoring.drift import Bounds, Drift, DriftSettings, compare
from pipeline.monitoring.drift_report import report_drift
from pipeline.monitoring.measures import measure, measure_training, vocabulary
from pipeline.paths import DRIFT, DRIFT_JSON, LINES, SPLITS, TOPICS
from pipeline.settings import set_params
from pipeline.titles.served_version import ServedVersion, find_served_version
from pipeline.titles.workbook import fill_titles
from pipeline.transcripts.lessons import lessons_from_tables
from tests.command import lectern
from tests.conftest import SUBJECTS
from tests.titles.small import register, write_book

BOUNDS = dict.fromkeys(Bounds.model_fields, 0.3)
SETTINGS = DriftSettings(days=30, fewest=5, confidence=0.99, bounds=Bounds(**BOUNDS))
GERMAN = "heute sprechen wir darüber warum das alles so wichtig ist und was wir daraus lernen können"
VERSION = ServedVersion("lectern", "1", "identity")


def lessons(count: int, words: int = 30) -> pd.DataFrame:
    """Make lessons of four topics each, from common words and a few rare ones."""
    rng = np.random.default_rng(1)
    common = [
        "so",
        "now",
        "we",
        "look",
        "at",
        "how",
        "the",
        "model",
        "learns",
        "from",
        "data",
        "and",
        "why",
        "it",
        "is",
    ]
    rows = [
        {
            "course_title": "Course",
            "lesson_num": str(lesson),
            "start_seconds": 60.0 * topic * (lesson % 5 + 2),
            "title": f"Why {rng.choice(SUBJECTS)} matter",
            "text": " ".join([*rng.choice(common, rng.integers(words // 2, words * 2)), *rng.choice(SUBJECTS, 3)]),
        }
        for lesson in range(count)
        for topic in range(4)
    ]
    return pd.DataFrame(rows)


def lines_of(train: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each topic. The last one of a lesson tells when the lesson ends."""
    return train.rename(columns={"start_seconds": "seconds"}).assign(text="word " * 150, row=range(len(train)))


TRAIN = lessons(60)
MEASURED = measure_training(TRAIN, lessons_from_tables(TRAIN, lines_of(TRAIN)))
KNOWN = vocabulary(TRAIN["text"].tolist())


def titled(texts: Sequence[str], titles: Sequence[str]) -> pd.DataFrame:
    return measure(texts, titles, KNOWN).assign(fallback=[not title for title in titles])


AS_TRAINED = titled(TRAIN["text"].tolist(), TRAIN["title"].tolist()).assign(chapter_minutes=MEASURED["chapter_minutes"])


def judge(rows: pd.DataFrame, bounds: DriftSettings = SETTINGS) -> Drift:
    return compare(MEASURED, rows, bounds, version="lectern/1", notes=[])


def distances(drift: Drift) -> dict[str, float]:
    return {finding.measure: finding.distance for finding in drift.findings}


def test_the_training_texts_have_no_distance_from_themselves() -> None:
    found = judge(AS_TRAINED)
    assert found.drifted == []
    assert set(distances(found)) == set(Bounds.model_fields)
    assert set(distances(found).values()) == {0.0}


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_samples_of_the_training_texts_never_drift(seed: int) -> None:
    drawn = AS_TRAINED.sample(len(AS_TRAINED), replace=True, random_state=np.random.default_rng(seed))
    assert judge(drawn).drifted == []


@settings(deadline=None, max_examples=5)
@given(st.permutations(range(12)))
def test_the_order_of_texts_does_not_matter(order: list[int]) -> None:
    rows = titled([*TRAIN["text"][:8], *[GERMAN] * 4], [*TRAIN["title"][:10], "", "x"])
    one, other = judge(rows), judge(rows.iloc[order])
    assert one == other


@given(st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=8)
def test_a_lower_bound_finds_at_least_the_same_drift(one: float, other: float) -> None:
    rows = titled([GERMAN] * 10, TRAIN["title"][:10].tolist())
    low, high = (
        judge(rows, SETTINGS.model_copy(update={"bounds": Bounds(**{**BOUNDS, "language": bound})})).drifted
        for bound in sorted([one, other])
    )
    assert set(high) <= set(low)


LONG = [" ".join([text] * 20) for text in TRAIN["text"][:40]]
MANY = TRAIN["title"][:40].tolist()


@pytest.mark.parametrize(
    ("texts", "titles", "drifted"),
    [
        (LONG, MANY, {"words", "characters"}),
        (TRAIN["text"][:40].tolist(), [title * 9 for title in MANY], {"title_words"}),
        (TRAIN["text"][:40].tolist(), [*MANY[:20], *[""] * 20], {"title_words", "fallback"}),
        ([GERMAN] * 40, MANY, {"words", "characters", "language", "unknown_words"}),
    ],
    ids=["longer texts", "longer titles", "no titles", "another language"],
)
def test_each_kind_of_drift_is_named_by_its_measures(texts: list[str], titles: list[str], drifted: set[str]) -> None:
    assert set(judge(titled(texts, titles)).drifted) == drifted


def test_the_length_of_chapters_drifts_by_itself() -> None:
    assert MEASURED["chapter_minutes"][:8].tolist() == [2, 2, 2, 1, 3, 3, 3, 1]
    found = judge(AS_TRAINED.assign(chapter_minutes=MEASURED["chapter_minutes"] * 3))
    assert found.drifted == ["chapter_minutes"]
    assert "| chapter minutes | 3.0 (1.0 to 6.0) | 9.0 (3.0 to 18.0) |" in found.as_markdown()


def test_words_of_only_one_training_lesson_count_as_unknown() -> None:
    train = pd.DataFrame(
        {
            "course_title": "C",
            "lesson_num": ["1", "1", "2"],
            "start_seconds": [0.0, 60.0, 0.0],
            "title": "",
            "text": ["the rare one", "the rare one", "the common one now"],
        }
    )
    assert measure_training(train)["unknown_words"].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 2])
    assert measure_training(train[:2])["unknown_words"].isna().all()


def test_too_few_texts_are_not_judged() -> None:
    found = judge(titled([GERMAN] * 4, [""] * 4))
    assert (found.drifted, found.findings) == ([], [])
    assert "Not judged: 4 texts" in found.headline


@pytest.fixture
def watched(project: Path, examples: pd.DataFrame) -> Path:
    """A project with a registered version, which was trained on its training split."""
    SPLITS.mkdir(parents=True)
    TRAIN.to_parquet(SPLITS / "train.parquet")
    register(project / "small", examples)
    set_params(["drift"], {"fewest": 5})
    return project


def test_titled_workbooks_and_folders_are_logged_as_numbers_without_words(watched: Path) -> None:
    topics = [("C", "1", f"0:{minute:02}:00", None) for minute in range(6)]
    lines = [
        ("C", "1", f"0:{minute:02}:01", f"we talk about graphs and threads number {minute}") for minute in range(6)
    ]
    write_book(watched / "week.xlsx", topics, lines)
    book = watched / "week.xlsx"
    fill_titles(book, read_untitled(book), watched / "out.xlsx", find_served_version())
    (watched / "in").mkdir()
    (watched / "in/talk.txt").write_text(GERMAN, encoding="utf-8")
    title_inbox(watched / "in", watched / "out", find_served_version())
    rows = read_batches(days_ago(1))
    assert rows["words"].tolist() == [8] * 6 + [16]
    assert rows["language"].tolist() == ["en"] * 6 + ["de"]
    assert set(rows["version"]) == {"lectern/1"}
    assert rows["unknown_words"].iloc[-1] > 0.9
    assert b"sprechen" not in b"".join(file.read_bytes() for file in BATCHES.iterdir())
    done = lectern("drift", "--since", "7", cwd=watched)
    assert done.returncode == 1, done.stderr
    assert "DRIFT" in done.stdout
    assert "was trained on an earlier split" in " ".join(done.stdout.split())
    assert "words" in json.loads(DRIFT_JSON.read_text(encoding="utf-8"))["drifted"]
    assert "<svg" in DRIFT.read_text(encoding="utf-8")


@pytest.mark.slow
def test_only_the_latest_version_and_the_given_days_are_judged(watched: Path) -> None:
    log_batch([GERMAN] * 9, ["x"] * 9, str(VERSION))
    for file in BATCHES.iterdir():
        file.rename(BATCHES / f"20200101T000000000000Z-{file.name[-16:]}")
    assert report_drift(DriftSettings.read()) is None
    log_batch([GERMAN] * 9, ["x"] * 9, "lectern/7")
    log_batch(TRAIN["text"][:50].tolist(), TRAIN["title"][:50].tolist(), str(VERSION))
    found = report_drift(DriftSettings.read())
    assert (found.version, found.texts, found.drifted) == ("lectern/1", 50, [])
    far = DriftSettings.read().model_copy(update={"days": 36500})
    assert (report_drift(far).texts, "language" in report_drift(far).drifted) == (59, True)


def test_lengths_of_chapters_are_compared_with_those_of_the_training_lessons(watched: Path) -> None:
    TOPICS.parent.mkdir(parents=True)
    TRAIN.to_parquet(TOPICS)
    lines_of(TRAIN).to_parquet(LINES)
    texts, titles = TRAIN["text"][:40].tolist(), TRAIN["title"][:40].tolist()
    log_batch(texts, titles, str(VERSION))  # passages, which have no length
    assert "chapter_minutes" not in distances(report_drift(DriftSettings.read()))
    log_batch(texts, titles, str(VERSION), minutes=[15.0] * 40)
    found = report_drift(DriftSettings.read())
    assert found.drifted == ["chapter_minutes"]
    assert distances(found)["chapter_minutes"] == 1
    assert "chapter minutes" in DRIFT.read_text(encoding="utf-8")


def test_without_a_training_split_unknown_words_are_not_measured(watched: Path) -> None:
    kept = (SPLITS / "train.parquet").rename(SPLITS / "kept.parquet")
    log_batch(TRAIN["text"][:9].tolist(), TRAIN["title"][:9].tolist(), str(VERSION))
    assert read_batches(days_ago(1))["unknown_words"].isna().all()
    with pytest.raises(UsageError, match="dvc repro split"):
        report_drift(DriftSettings.read())
    kept.rename(SPLITS / "train.parquet")
    found = report_drift(DriftSettings.read())
    assert "unknown_words" not in distances(found)
