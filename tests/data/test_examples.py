"""Examples from topics and lines, without loss."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.broken_rows import no_rows_aside
from pipeline.data.examples import build_examples
from pipeline.data.workbook import ingest
from pipeline.stages import merge as stage

LESSON = ["course_title", "lesson_num"]


def topics_of(*rows: tuple[str, float, str]) -> pd.DataFrame:
    """Build topics of one course from (lesson, start, title)."""
    frame = pd.DataFrame(rows, columns=["lesson_num", "start_seconds", "title"])
    frame.insert(0, "course_title", "Clouds")
    types = {"course_title": "str", "lesson_num": "str", "start_seconds": float, "title": "str"}
    return frame.astype(types).assign(row=np.arange(2, len(rows) + 2))


def lines_of(*rows: tuple[str, float, str]) -> pd.DataFrame:
    """Build lines of one course from (lesson, time, text)."""
    return topics_of(*rows).rename(columns={"start_seconds": "seconds", "title": "text"})


def titles_and_texts(examples: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(examples["title"], examples["text"], strict=True))


def reasons(set_aside: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(zip(set_aside["what"], set_aside["title"] + set_aside["text"], set_aside["reason"], strict=True))


TOPICS = topics_of(("1", 0, "What clouds are"), ("1", 60, "How clouds form"), ("2A", 10, "Rain"))
LINES = lines_of(
    ("1", 5, "look up"), ("1", 59.9, "white"), ("1", 60, "air rises"), ("1", 999, "and cools"), ("2A", 10, "it falls")
)


def test_a_line_belongs_to_the_last_topic_that_has_started() -> None:
    assert titles_and_texts(build_examples(TOPICS, LINES).examples) == [
        ("What clouds are", "look up white"),
        ("How clouds form", "air rises and cools"),
        ("Rain", "it falls"),
    ]


def test_a_topic_ends_at_the_start_of_the_next_topic_of_its_lesson() -> None:
    ends = build_examples(TOPICS, LINES).examples["end_seconds"]
    assert ends.fillna(-1).tolist() == [60, -1, -1]


def test_an_example_keeps_its_lines_and_their_times() -> None:
    first = build_examples(TOPICS, LINES).examples.iloc[0]
    assert (list(first["lines"]), list(first["line_seconds"])) == (["look up", "white"], [5, 59.9])


def test_a_line_before_the_first_topic_is_set_aside() -> None:
    lines = lines_of(("1", 5, "look up"), ("1", 61, "air rises"), ("2A", 9, "early"), ("2A", 11, "rain"))
    assert reasons(build_examples(TOPICS, lines).set_aside) == [("line", "early", "before the first topic")]


def test_a_line_of_a_lesson_without_topics_is_set_aside() -> None:
    built = build_examples(TOPICS, pd.concat([LINES, lines_of(("3", 5, "snow"))], ignore_index=True))
    assert reasons(built.set_aside) == [("line", "snow", "no topics for this lesson")]


def test_a_line_without_words_is_set_aside() -> None:
    built = build_examples(TOPICS, pd.concat([LINES, lines_of(("1", 5, "\u00a0 "))], ignore_index=True))
    assert reasons(built.set_aside) == [("line", "\u00a0 ", "no words")]


def test_a_topic_without_lines_is_set_aside_with_its_title() -> None:
    built = build_examples(TOPICS, LINES[LINES["lesson_num"] == "1"])
    assert reasons(built.set_aside) == [("topic", "Rain", "no lines")]


def test_lines_at_the_same_time_keep_the_order_of_the_workbook() -> None:
    lines = lines_of(("2A", 12, "one"), ("2A", 12, "two"), ("2A", 12, "three"))
    assert build_examples(TOPICS, lines.iloc[::-1]).examples["text"].tolist() == ["one two three"]


def test_the_same_lesson_number_in_another_course_is_another_lesson() -> None:
    courses = pd.Series(["Clouds", "Rivers", "Clouds", "Clouds", "Rivers"], dtype="str")
    assert titles_and_texts(build_examples(TOPICS, LINES.assign(course_title=courses)).examples) == [
        ("What clouds are", "look up"),
        ("How clouds form", "air rises and cools"),
    ]


@pytest.mark.parametrize("which", ["topics", "lines", "both"])
def test_empty_tables_give_no_examples(which: str) -> None:
    topics = TOPICS.head(0) if which != "lines" else TOPICS
    lines = LINES.head(0) if which != "topics" else LINES
    built = build_examples(topics, lines)
    assert (len(built.examples), len(built.set_aside)) == (0, len(topics) + len(lines))


def test_examples_survive_a_parquet_file_unchanged(tmp_path: Path) -> None:
    examples = build_examples(TOPICS, LINES).examples
    examples.to_parquet(tmp_path / "examples.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "examples.parquet"), examples)


def test_the_stage_writes_examples_and_set_aside_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/interim").mkdir(parents=True)
    TOPICS.to_parquet("data/interim/topics.parquet")
    LINES.head(4).to_parquet("data/interim/lines.parquet")
    no_rows_aside().to_parquet("data/interim/broken_rows.parquet")
    stage.run()
    set_aside = pd.read_csv("data/examples/set_aside.csv")
    assert (set_aside["title"].tolist(), len(pd.read_parquet("data/examples/examples.parquet"))) == (["Rain"], 2)
    assert "2 examples from 4 lines" in capsys.readouterr().out


# Laws for any workbook.

law = settings(max_examples=25, deadline=None)
lessons = st.sampled_from(["1", "2", "2A", "11"])
times = st.integers(0, 40).map(float) | st.floats(0, 40)
some_topics = st.lists(st.tuples(lessons, times, st.text(max_size=3)), unique_by=lambda t: t[:2], max_size=12)
some_lines = st.lists(st.tuples(lessons, times, st.text(max_size=3)), max_size=40)


def key(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    """Return lines as sorted tuples."""
    return sorted(frame[[*LESSON, "seconds", "text"]].itertuples(index=False, name=None))


@law
@given(some_topics, some_lines)
def test_every_line_is_in_an_example_or_set_aside(topics: list, lines: list) -> None:
    given_lines = lines_of(*lines)
    built = build_examples(topics_of(*topics), given_lines)
    used = built.examples[[*LESSON, "line_seconds", "lines"]].explode(["line_seconds", "lines"])
    used = used.rename(columns={"line_seconds": "seconds", "lines": "text"})
    aside = built.set_aside[built.set_aside["what"] == "line"]
    assert sorted(key(used) + key(aside)) == key(given_lines)


@law
@given(some_topics, some_lines)
def test_every_topic_is_an_example_or_set_aside(topics: list, lines: list) -> None:
    built = build_examples(topics_of(*topics), lines_of(*lines))
    aside = built.set_aside[built.set_aside["what"] == "topic"].rename(columns={"seconds": "start_seconds"})
    found = pd.concat([built.examples, aside])[["lesson_num", "start_seconds", "title"]]
    assert sorted(found.itertuples(index=False, name=None)) == sorted(topics)


@law
@given(some_topics, some_lines)
def test_every_line_lies_within_its_topic(topics: list, lines: list) -> None:
    for example in build_examples(topics_of(*topics), lines_of(*lines)).examples.itertuples():
        end = np.inf if np.isnan(example.end_seconds) else example.end_seconds
        assert all(example.start_seconds <= seconds < end for seconds in example.line_seconds)


@law
@given(some_topics, some_lines, st.randoms())
def test_the_order_of_rows_does_not_matter(topics: list, lines: list, random: object) -> None:
    def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.sample(frac=1, random_state=random.randrange(2**32))

    in_order = build_examples(topics_of(*topics), lines_of(*lines))
    mixed = build_examples(shuffled(topics_of(*topics)), shuffled(lines_of(*lines)))
    pd.testing.assert_frame_equal(mixed.examples, in_order.examples)
    pd.testing.assert_frame_equal(mixed.set_aside, in_order.set_aside)


def merge_naively(topics: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """Join as the original notebook does: all pairs of a topic and a line of its lesson, filtered and grouped."""
    topics = topics.sort_values("start_seconds", kind="stable").drop(columns="row")
    topics = topics.assign(end=topics.groupby(LESSON)["start_seconds"].shift(-1, fill_value=np.inf))
    pairs = topics.merge(lines.sort_values(["seconds", "row"]), on=LESSON)
    pairs = pairs[(pairs["seconds"] >= pairs["start_seconds"]) & (pairs["seconds"] < pairs["end"])]
    return pairs.groupby([*LESSON, "start_seconds", "title"])["text"].agg(" ".join).reset_index()


def test_the_real_workbook_gives_the_examples_of_the_notebook() -> None:
    if not os.environ.get("LECTERN_SHARED"):
        pytest.skip("LECTERN_SHARED is not set: the real workbook is not available")
    workbook = ingest(Path(os.environ["LECTERN_SHARED"]) / "data/fsdl_2022_project_transcripts.xlsx")
    built = build_examples(workbook.topics, workbook.lines)
    naive = merge_naively(workbook.topics, workbook.lines)
    pd.testing.assert_frame_equal(built.examples[naive.columns], naive)
    assert (len(built.examples), built.examples["lines"].map(len).sum(), len(built.set_aside)) == (397, 14_791, 0)
