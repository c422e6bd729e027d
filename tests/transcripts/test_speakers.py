"""Tell speakers' names from what they say."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from pipeline.data.combine_workbooks import combine_workbooks
from pipeline.data.workbook import read_workbook
from pipeline.transcripts.chapter_files import write_transcripts
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.speakers import split_speakers
from pipeline.transcripts.transcript import Line, Topic, Transcript

WORDS = ["salt draws water out", "one thing: never rush", "and the jar?", "does the rest"]


@pytest.mark.parametrize(
    "name", ["Ana", "Ana Lopez", "Prof. Ana de la Cruz", "SPEAKER_00", "Speaker 1", "张伟", "O'Neil-Smith"]
)
@pytest.mark.parametrize("form", ["{}: {}", ">> {}: {}", "[{}]: {}"])
def test_names_before_a_colon_are_split_off(name: str, form: str) -> None:
    lines = [form.format(name, words) for words in WORDS]
    assert split_speakers(lines) == [(name, words) for words in WORDS]


def test_lines_without_a_name_keep_their_words() -> None:
    lines = ["Ana: salt draws water out", "of the cabbage", "Ben: really?", "Ana: yes", "Ben: I see"]
    assert split_speakers(lines) == [
        ("Ana", "salt draws water out"),
        ("", "of the cabbage"),
        ("Ben", "really?"),
        ("Ana", "yes"),
        ("Ben", "I see"),
    ]


def test_name_alone_on_a_line_belongs_to_the_next() -> None:
    lines = ["Ana Lopez:", "salt draws water out", "Ben:", "really?", "Ana Lopez:", "yes", "Ben:", "I see"]
    assert split_speakers(lines) == [
        ("Ana Lopez", ""),
        ("Ana Lopez", "salt draws water out"),
        ("Ben", ""),
        ("Ben", "really?"),
        ("Ana Lopez", ""),
        ("Ana Lopez", "yes"),
        ("Ben", ""),
        ("Ben", "I see"),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["Note: salt first", "then we wait", "and wait", "and taste", "it is done"],
        ["Salt: two grams", "Sugar: one gram", "Water: a cup", "Cabbage: a head"],
        ["we say: wait", "we say: taste", "we say: done"],
        ["https://example.org", "12:30 is lunch", "a: b"],
        [],
    ],
)
def test_colons_in_sentences_and_lists_are_no_speakers(lines: list[str]) -> None:
    assert split_speakers(lines) == [("", line) for line in lines]


def test_marks_of_a_change_of_speaker_are_removed() -> None:
    assert split_speakers([">> hello", "there", ">>> and now"]) == [("", "hello"), ("", "there"), ("", "and now")]


def test_speakers_are_a_column_of_workbooks_and_tables(tmp_path: Path) -> None:
    lines = [Line(0.0, "salt draws water out", "Ana Lopez"), Line(5.0, "really?", "=Ben"), Line(9.0, "yes")]
    silent = Transcript("C", "2", [Line(0.0, "so")], 9.0, [Topic(0.0, "Jars")])
    write_transcripts([Transcript("C", "1", lines, 12.0, [Topic(0.0, "Salt")])], tmp_path / "a.xlsx")
    write_transcripts([silent], tmp_path / "b.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "a.xlsx")["lesson_transcripts"]
    assert [(cell.value, cell.data_type) for cell in sheet["E"]][:3] == [
        ("speaker", "s"), ("Ana Lopez", "s"), ("=Ben", "s"),
    ]  # fmt: skip
    assert openpyxl.load_workbook(tmp_path / "b.xlsx")["lesson_transcripts"].max_column == 4

    combine_workbooks([tmp_path / "a.xlsx", tmp_path / "b.xlsx"], tmp_path / "both")
    for source, expected in (("a.xlsx", [lines]), ("both", [lines, silent.lines])):
        assert read_workbook(tmp_path / source).problems == []
        assert [talk.lines for talk in read_transcripts(tmp_path / source)] == expected
    assert "speaker" not in read_workbook(tmp_path / "a.xlsx").lines
