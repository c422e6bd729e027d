from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.combine_workbooks import Combined, combine_workbooks
from pipeline.data.problems import WorkbookRejected
from pipeline.data.workbook import ingest
from tests.titles.small import write_book


def _book(path: Path, *topics: tuple[str, str, str]) -> Path:
    """Write a workbook with one line for each topic, at the same time."""
    return write_book(
        path,
        [("C", lesson, time, title) for lesson, time, title in topics],
        [("C", lesson, time, f"we talk about {title}") for lesson, time, title in topics],
    )


def test_a_lesson_is_taken_from_the_last_workbook_that_holds_it(tmp_path: Path) -> None:
    first = _book(tmp_path / "a.xlsx", ("1", "0:00", "old"), ("1", "1:00", "older"), ("2A", "0:00:01.5", "=kept"))
    second = _book(tmp_path / "b.xlsx", ("01", "0:00", "new"), ("3", "0:00", "added"))
    assert combine_workbooks([first, second], tmp_path / "combined") == Combined(lessons=3, replaced=1)
    found = ingest(tmp_path / "combined")
    assert sorted(found.topics[["lesson_num", "start_seconds", "title"]].itertuples(index=False, name=None)) == [
        ("1", 0.0, "new"), ("2A", 1.5, "=kept"), ("3", 0.0, "added"),
    ]  # fmt: skip
    assert sorted(found.lines["text"]) == ["we talk about =kept", "we talk about added", "we talk about new"]
    assert combine_workbooks([tmp_path / "combined", second], tmp_path / "combined") == Combined(lessons=3, replaced=2)
    assert len(ingest(tmp_path / "combined").topics) == 3


def test_a_workbook_with_errors_is_rejected_and_nothing_is_written(tmp_path: Path) -> None:
    good = _book(tmp_path / "a.xlsx", ("1", "0:00", "good"))
    broken = write_book(tmp_path / "b.xlsx", [("C", "1", "half past", "bad")], [("C", "1", "0:00", "words")])
    with pytest.raises(WorkbookRejected, match=r"b\.xlsx"):
        combine_workbooks([good, broken], tmp_path / "combined")
    assert not (tmp_path / "combined").exists()
