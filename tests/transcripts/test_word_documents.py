"""Read the text of Word documents."""

from __future__ import annotations

from pathlib import Path

import docx
import pytest

from pipeline.errors import Rejected
from pipeline.transcripts.word_documents import is_word_document, read_word_document


def write(path: Path, *paragraphs: str) -> Path:
    document = docx.Document()
    for text in paragraphs:
        document.add_paragraph(text)
    document.save(str(path))
    return path


def test_paragraphs_and_line_breaks_are_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "talk.docx", "Ana Lopez   0:05\nsalt draws water out", "Ben Okri   0:09\nreally?")
    assert is_word_document(path)
    assert read_word_document(path) == "Ana Lopez   0:05\nsalt draws water out\nBen Okri   0:09\nreally?"


def test_document_is_recognised_by_its_content(tmp_path: Path) -> None:
    assert is_word_document(write(tmp_path / "talk.docx", "a").rename(tmp_path / "talk.txt"))
    (tmp_path / "other.docx").write_text("0:05 salt", encoding="utf-8")
    assert not is_word_document(tmp_path / "other.docx")


def test_damaged_document_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "talk.docx", "salt")
    content = path.read_bytes()
    at = content.index(b"word/document.xml") + 40
    path.write_bytes(content[:at] + bytes(60) + content[at + 60 :])
    with pytest.raises(Rejected, match=r"talk\.docx is a damaged Word document"):
        read_word_document(path)
