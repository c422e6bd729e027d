from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import Rejected
from pipeline.titles.corrections import save_corrections
from pipeline.titles.edited_table import ChapterRow, chapters_from_table, rename_lesson, table_rows
from pipeline.transcripts.transcript import Line, Topic, Transcript

TALK = Transcript("C", "1", [Line(0.0, "hello"), Line(61.5, "so"), Line(3700.0, "bye")], 3710.0)


def test_an_unedited_table_is_read_back_unchanged() -> None:
    rows = [ChapterRow("0:00", "Intro"), ChapterRow("0:01:01.5", "A <b> & =1"), ChapterRow("1:01:40", "End")]
    done = chapters_from_table(TALK, rows)
    assert [(each.start_seconds, each.end_seconds, each.text) for each in done.chapters] == [
        (0.0, 61.5, "hello"), (61.5, 3700.0, "so"), (3700.0, 3710.0, "bye"),
    ]  # fmt: skip
    assert table_rows(done) == rows
    assert done.remarks() == []


def test_empty_rows_are_skipped_and_titles_have_one_line() -> None:
    done = chapters_from_table(
        TALK, [ChapterRow("", " "), ChapterRow("0", " In\n tro\0 "), ChapterRow("", ""), ChapterRow("90", "End")]
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
        chapters_from_table(TALK, [ChapterRow(*row) for row in rows])
    assert why in str(refused.value)


def test_a_lesson_is_renamed_as_in_a_workbook() -> None:
    renamed = rename_lesson(TALK, " My \n course ", "02")
    assert (renamed.course_title, renamed.lesson_num) == ("My course", "2")
    assert rename_lesson(TALK, " ", "") == TALK


def test_a_chapter_without_a_title_is_not_saved_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [ChapterRow("0:00", "Intro"), ChapterRow("1:01.5", "Chapter 3"), ChapterRow("1:01:40", "Chapter 4")]
    with pytest.raises(Rejected, match=r"0:01:01\.5 Chapter 3, 1:01:40 Chapter 4\. Write"):
        save_corrections(chapters_from_table(TALK, rows), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    given = replace(TALK, topics=[Topic(61.5, "Chapter 3"), Topic(3700.0, "Chapter 4")])
    assert save_corrections(chapters_from_table(given, rows), tmp_path / "kept").is_file()
