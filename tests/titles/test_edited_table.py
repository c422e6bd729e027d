from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.chapters.divide_transcript import divide_at
from pipeline.errors import Rejected
from pipeline.registry.chapter_titles import add_titles
from pipeline.registry.fallback_title import Shown
from pipeline.titles.corrections import lesson_file_name, save_corrections, training_command
from pipeline.titles.edited_table import ChapterRow, chapters_from_table, table_rows
from pipeline.transcripts.chapter import ChapteredTranscript
from pipeline.transcripts.lesson_names import rename_lesson
from pipeline.transcripts.transcript import Line, Topic, Transcript

TALK = Transcript("C", "1", [Line(0.0, "hello"), Line(61.5, "so"), Line(3700.0, "bye")], 3710.0)
FOUND = divide_at(TALK, [Topic(0.0, "Intro"), Topic(61.5, "So"), Topic(3700.0, "Goodbye")])


def test_an_unedited_table_is_read_back_unchanged() -> None:
    rows = [ChapterRow("0:00", "Intro"), ChapterRow("0:01:01.5", "A <b> & =1"), ChapterRow("1:01:40", "End")]
    done = chapters_from_table(FOUND, rows)
    assert [(each.start_seconds, each.end_seconds, each.text) for each in done.chapters] == [
        (0.0, 61.5, "hello"), (61.5, 3700.0, "so"), (3700.0, 3710.0, "bye"),
    ]  # fmt: skip
    assert table_rows(done) == rows
    assert done.remarks() == []


def test_empty_rows_are_skipped_and_titles_have_one_line() -> None:
    done = chapters_from_table(
        FOUND, [ChapterRow("", " "), ChapterRow("0", " In\n tro\0 "), ChapterRow("", ""), ChapterRow("90", "End")]
    )
    assert table_rows(done) == [ChapterRow("0:00", "In tro"), ChapterRow("1:30", "End")]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "no chapters"),
        ([("", "")], "no chapters"),
        ([("0:00", "A"), ("", ""), ("1:00", " ")], "Row 3 (1:00) has no title"),
        ([("0:00", "A"), ("", "B")], "Row 2 (B) has no time"),
        ([("0:00", "A"), ("soon", "B")], "Row 2: 'soon' is not a time"),
        ([("0:00", "A"), ("-1:00", "B")], "Row 2: '-1:00' is negative"),
        ([("0:00", "A"), ("2:00", "B"), ("1:00", "C")], "Row 3: 1:00 is not after the time of row 2, 2:00"),
        ([("0:00", "A"), ("0:00", "B")], "Row 2: 0:00 is not after"),
        ([("0:00", "A"), ("2:00:00", "B")], "Row 2: 2:00:00 is after the end of the transcript, 1:01:50"),
        ([("0:30", "A")], "Row 1: the transcript starts before 0:30"),
        ([("0:00", "A" * 501)], "row 1 is longer"),
    ],
)
def test_an_invalid_row_is_named(rows: list[tuple[str, str]], why: str) -> None:
    with pytest.raises(Rejected) as refused:
        chapters_from_table(FOUND, [ChapterRow(*row) for row in rows])
    assert why in str(refused.value)


def test_a_lesson_is_renamed_as_in_a_workbook() -> None:
    renamed = rename_lesson(TALK, " My \n course ", "02")
    assert (renamed.course_title, renamed.lesson_num) == ("My course", "2")
    assert rename_lesson(TALK, " ", "") == TALK


def test_a_chapter_without_a_title_is_not_saved_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [ChapterRow("0:00", "Intro"), ChapterRow("1:01.5", "Chapter 3"), ChapterRow("1:01:40", "Chapter 4")]
    with pytest.raises(Rejected, match=r"0:01:01\.5 Chapter 3, 1:01:40 Chapter 4\. Write"):
        save_corrections(chapters_from_table(FOUND, rows), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    given = replace(TALK, topics=[Topic(61.5, "Chapter 3"), Topic(3700.0, "Chapter 4")])
    assert save_corrections(chapters_from_table(divide_at(given, given.topics), rows), tmp_path / "kept").is_file()


def _keyphrases() -> ChapteredTranscript:
    """Three chapters, of which the second and third have keyphrases as titles."""
    untitled = divide_at(TALK, [Topic(0.0, "Intro"), Topic(61.5, ""), Topic(3700.0, "")])
    return add_titles(untitled, {"so": Shown("So", True), "bye": Shown("Bye", True)})


def test_a_keyphrase_keeps_its_mark_until_its_title_is_corrected() -> None:
    found = _keyphrases()
    rows = table_rows(found)
    assert chapters_from_table(found, rows).keyphrases == (2, 3)
    later, corrected = rows[1]._replace(time="1:00"), rows[2]._replace(title="Goodbye")
    assert chapters_from_table(found, [rows[0], later, corrected]).fallback_marks == ["", "keyphrase: So", ""]
    assert chapters_from_table(found, [rows[0], rows[2]]).keyphrases == (2,)


def test_a_keyphrase_is_not_saved_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = _keyphrases()
    with pytest.raises(Rejected, match=r"keyphrases.*0:01:01\.5 So, 1:01:40 Bye\. Write"):
        save_corrections(chapters_from_table(found, table_rows(found)), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    "topics",
    [
        [(0.0, "Intro"), (9000.0, "After the last words")],
        [(0.0, "Intro"), (61.5, "A" * 600)],
        [(0.0, "Two  spaces"), (61.4999996, "Rounded"), (61.4999999, "Rounded to the same time")],
        [(30.0, "A chapter at 0:00 is added")],
    ],
)
def test_an_untouched_table_is_accepted(topics: list[tuple[float, str]]) -> None:
    found = add_titles(divide_at(TALK, [Topic(*topic) for topic in topics]), {})
    assert chapters_from_table(found, table_rows(found)) == found


def test_the_untouched_rows_of_an_edited_table_are_accepted() -> None:
    topics = [(0.0, "Intro"), (61.4999996, "A" * 600), (9000.0, "After the last words")]
    found = divide_at(TALK, [Topic(*topic) for topic in topics])
    rows = [ChapterRow("0:00", "Edited"), *table_rows(found)[1:]]
    done = chapters_from_table(found, rows)
    assert [(each.start_seconds, each.title) for each in done.chapters] == [(0.0, "Edited"), *topics[1:]]


def test_a_lesson_with_a_long_name_in_any_script_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for course in ("日本語の講義" * 30, "c" * 300, "😀" * 100, "лекция" * 40):
        named = replace(FOUND, transcript=replace(TALK, course_title=course))
        assert save_corrections(named, tmp_path / "kept").is_file()
    assert "日本語の講義" in lesson_file_name(
        replace(FOUND, transcript=replace(TALK, course_title="日本語の講義" * 30))
    )


def test_the_training_command_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("ingest: {workbook: data/my book.xlsx}", encoding="utf-8")
    command = training_command(Path("my corrections"))
    assert command == "lectern use 'data/my book.xlsx' 'my corrections'/*.xlsx"
