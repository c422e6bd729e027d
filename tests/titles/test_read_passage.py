"""Read a passage from a file or standard input."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.titles.read_passage import read_passage

TEXT = "we talk about graphs"


@pytest.mark.parametrize(
    "content", [TEXT.encode(), codecs.BOM_UTF8 + TEXT.encode(), TEXT.encode("utf-16"), TEXT.encode("utf-16-le")]
)
def test_the_encoding_of_a_file_does_not_change_the_passage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_bytes(content)
    assert read_passage(str(tmp_path / "talk.txt")) == TEXT


def test_a_byte_order_mark_on_standard_input_does_not_change_the_passage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\ufeff{TEXT}"))
    assert read_passage("-") == TEXT


@pytest.mark.parametrize("text", ['{"segments": [{"text": "hi", "start": 0, "end": 1}]}', "0:00,0:05\nhi\n"])
def test_captions_are_pointed_to_chapters(text: str) -> None:
    with pytest.raises(UsageError, match="lectern chapters"):
        read_passage(text)


@pytest.mark.parametrize("text", ["{x} is a set, and so is [y]", "At 10:30 we meet", "[1, 2, 3]"])
def test_a_passage_with_brackets_or_times_is_a_passage(text: str) -> None:
    assert read_passage(text) == text


@pytest.mark.parametrize("text", ["WEBVTT", "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,Hi", "start;end;text"])
def test_captions_of_one_line_are_no_passage(text: str) -> None:
    with pytest.raises(UsageError, match="lectern chapters"):
        read_passage(text)
