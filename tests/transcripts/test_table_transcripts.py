"""Read transcripts as tables."""

from __future__ import annotations

import pytest

from pipeline.errors import Rejected
from pipeline.transcripts.table_transcripts import is_table, read_table

LINES = [(0.0, 4.0, "salt, water"), (4.5, 9.0, "the jar")]


@pytest.mark.parametrize(
    "text",
    [
        "start\tend\ttext\n0\t4000\tsalt, water\n4500\t9000\tthe jar\n",
        'Start,End,Text\n"00:00:00,000","00:00:04,000","salt, water"\n"00:00:04,500","00:00:09,000",the jar\n',
        "sep=;\nStart time;End time;Caption\n0;4;salt, water\n4.5;9;the jar\n",
        '\ufefftext,start,end\r\n"salt, water",0:00,0:04\r\n\r\nthe jar,0:04.5,0:09\r\n',
    ],
)
def test_table_gives_its_lines(text: str) -> None:
    assert is_table(text)
    assert [(each.seconds, each.end_seconds, each.text) for each in read_table(text, "talk.csv")] == LINES


def test_speakers_are_read_and_ends_are_optional() -> None:
    (line,) = read_table("Time,Speaker,Text\n0:05,Ana Lopez,hello\n", "talk.csv")
    assert (line.seconds, line.end_seconds, line.text, line.speaker) == (5, None, "hello", "Ana Lopez")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start,text\n0,a\nsoon,b\n", r"talk.csv, line 3: 'soon' is not a time"),
        ("sep=,\nend,text,start\n1,a\n", r"line 3: the row has 2 of 3 columns"),
    ],
)
def test_row_that_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        read_table(text, "talk.csv")


@pytest.mark.parametrize(
    "text", ["", "0:00 start of the text", "start,end\n1,2", "WEBVTT\n\n0:01 --> 0:02\nstart, text"]
)
def test_other_text_is_no_table(text: str) -> None:
    assert not is_table(text)
