import hashlib
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.cell_values import as_lesson, as_name, as_seconds
from pipeline.data.examples import build_examples
from pipeline.data.sample_workbook import SampleSettings, build_sample
from pipeline.data.workbook import read_workbook
from pipeline.data.workbook_files import write_sheets
from pipeline.errors import Rejected

SMALL = SampleSettings(topics=24, words_per_minute=150, seed=1)
LESSON = ["course_title", "lesson_num"]

BUILD = """
import sys
from pathlib import Path
from pipeline.data.sample_workbook import SampleSettings, build_sample
from pipeline.data.workbook_files import write_sheets

write_sheets(*build_sample(SampleSettings(topics=24, words_per_minute=150, seed=1)), Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def small():
    return build_sample(SMALL)


@pytest.fixture(scope="module")
def small_workbook(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "sample.xlsx"
    write_sheets(*small, path)
    return path


@pytest.fixture(scope="module")
def shipped():
    return build_sample(SampleSettings.read(Path(__file__).parents[2] / "params.yaml"))


def words_before(lines):
    """Return the number of words before each line of its lesson."""
    words = lines["transcript"].map(lambda text: len(str(text).split()))
    return words.groupby([lines[column].astype(str) for column in LESSON]).cumsum() - words


def moments(table):
    seconds = as_seconds(table["timestamp"]).seconds
    return set(zip(table["course_title"], table["lesson_num"], seconds, strict=True))


def test_another_process_writes_the_same_bytes(small_workbook, tmp_path):
    again = tmp_path / "again.xlsx"
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", BUILD, str(again)], check=True, env=environment)
    digests = {hashlib.md5(path.read_bytes()).hexdigest() for path in (small_workbook, again)}
    assert len(digests) == 1


def test_every_line_is_under_a_topic_and_every_topic_has_lines(small_workbook):
    workbook = read_workbook(small_workbook)
    merged = build_examples(workbook.topics, workbook.lines)
    assert (len(merged.examples), len(merged.set_aside)) == (SMALL.topics, 0)


def test_the_sample_has_no_problems(small_workbook):
    assert read_workbook(small_workbook).problems == []


def test_lines_are_read_as_they_were_written(small, small_workbook):
    assert read_workbook(small_workbook).lines["text"].tolist() == [str(text) for text in small[1]["transcript"]]


def test_a_line_starts_after_all_words_before_it(small):
    _, lines = small
    due = words_before(lines) * 60 // SMALL.words_per_minute
    late = due - lines["timestamp"].map(timedelta.total_seconds)
    assert (late.min(), (late > 0).sum()) == (0, 2)  # only lines with the time of the line before are early


def test_a_topic_starts_with_a_line_at_the_same_time(small):
    topics, lines = small
    assert moments(topics) <= moments(lines)


def test_lines_have_six_to_fourteen_words(small):
    counts = {len(text.split()) for text in small[1]["transcript"] if text != 1}
    assert min(counts) >= 6
    assert max(counts) <= 14


def test_a_small_sample_has_six_lessons_of_several_courses(small):
    lessons = small[0][LESSON].drop_duplicates()
    assert (len(lessons), lessons["course_title"].nunique()) == (6, 5)


def test_the_shipped_sample_has_forty_lessons_of_five_to_twenty_topics(shipped):
    sizes = shipped[0].groupby(LESSON, sort=False).size()
    assert len(sizes) == 40
    assert sizes.between(5, 20).all()


def test_titles_are_unique_and_have_two_to_fourteen_words(shipped):
    titles = as_name(shipped[0]["topic"])
    assert titles.str.lower().is_unique
    assert titles.str.split().str.len().between(2, 14).all()


def test_no_title_is_the_first_words_of_its_text(shipped, tmp_path):
    write_sheets(*shipped, tmp_path / "sample.xlsx")
    workbook = read_workbook(tmp_path / "sample.xlsx")
    examples = build_examples(workbook.topics, workbook.lines).examples
    assert not [
        title for title, text in zip(examples["title"], examples["text"], strict=True) if text.startswith(title)
    ]


def test_fewer_than_one_line_in_a_thousand_is_repeated(shipped):
    assert shipped[1]["transcript"].duplicated().mean() < 0.001


@pytest.mark.parametrize(
    ("what", "kinds"), [("lesson_num", {int, str}), ("timestamp", {timedelta, str}), ("topic", {str})]
)
def test_cells_of_topics_have_mixed_types(small, what, kinds):
    assert set(small[0][what].map(type)) == kinds


def test_some_titles_have_extra_spaces(small):
    titles = small[0]["topic"]
    assert 2 <= (titles != as_name(titles)).sum() < 12


def test_some_transcript_cells_are_numbers(small):
    assert small[1]["transcript"].map(type).eq(int).sum() == 2


def test_lesson_numbers_with_letters_belong_to_the_lesson_before(small):
    assert "1A" in set(as_lesson(small[0]["lesson_num"]))


def test_the_video_url_is_left_out(small):
    assert not any("video_url" in table for table in small)


def test_another_seed_chooses_other_topics(small):
    other, _ = build_sample(SMALL.model_copy(update={"seed": 2}))
    assert set(as_name(other["topic"])) != set(as_name(small[0]["topic"]))


def test_too_many_topics_are_rejected_with_both_counts():
    with pytest.raises(Rejected, match=r"sample\.topics in params\.yaml is 5000.* only \d{3} topics"):
        build_sample(SMALL.model_copy(update={"topics": 5000}))


def test_a_text_that_starts_with_an_equals_sign_stays_text(tmp_path):
    topics = pd.DataFrame({"course_title": ["c"], "lesson_num": [1], "timestamp": [timedelta(0)], "topic": ["=A1"]})
    lines = pd.DataFrame({"course_title": ["c"], "lesson_num": [1], "timestamp": [timedelta(0)], "transcript": ["=B2"]})
    write_sheets(topics, lines, tmp_path / "w.xlsx")
    workbook = read_workbook(tmp_path / "w.xlsx")
    assert (workbook.topics["title"][0], workbook.lines["text"][0]) == ("=A1", "=B2")
