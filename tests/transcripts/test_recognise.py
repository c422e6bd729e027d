"""Transcripts are recognised by their content."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.recognise import captions_kind, check_not_a_transcript

CUE = "00:00:00.000 --> 00:00:05.000\nhello\n"
CAPTIONS = {
    "WebVTT": f"WEBVTT\n\n{CUE}",
    "SubRip": f"1\n{CUE}",
    "JSON": '[{"text": "hello", "start": 0, "duration": 5}]',
    "XML": '<tt><body><div><p begin="0s" end="5s">hello</p></div></body></tt>',
    "ASS": "[Script Info]\n",
    "table": "start,end,text\n0,5,hello\n",
}


@pytest.mark.parametrize(("kind", "text"), CAPTIONS.items(), ids=CAPTIONS)
def test_captions_are_named_by_their_kind(kind: str, text: str) -> None:
    assert kind in str(captions_kind(text))


@pytest.mark.parametrize("text", ["0:00 hello\n0:05 there", *CAPTIONS.values()])
def test_a_transcript_is_no_workbook(text: str, tmp_path: Path) -> None:
    (tmp_path / "talk").write_text(text)
    with pytest.raises(UsageError, match="lectern chapters"):
        check_not_a_transcript(tmp_path / "talk")


@pytest.mark.parametrize(
    "text", ["hello there", "course_title,lesson_num,timestamp,transcript\nC,1,0:00,hi", "PK\x03\x04"]
)
def test_other_files_are_left_to_the_reader_of_workbooks(text: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(text)
    check_not_a_transcript(tmp_path / "table.csv")


@pytest.mark.parametrize("first", ["{laughs} hello", '{"hello": 1}', "[Ana] hello"])
def test_text_that_begins_with_a_bracket_is_text(first: str, tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text(f"{first}\n0:05 there\n0:10 bye\n")
    assert [line.text for line in read_transcripts(tmp_path / "talk.txt")[0].lines][-1] == "bye"
