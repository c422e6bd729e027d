"""The page's calls for transcripts and chapters, over HTTP as programs make them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest

from pipeline.data.workbook import ingest
from tests.server.page_server import PAGE, TABLE, Writer, answer, file_at, new_visitor, page_server, upload
from tests.server.running_server import AS_TEXT, THREE_SUBJECTS, write_captions
from tests.titles.small import write_book

SESSION = {"session_hash": "one"}
OTHER_TALK = AS_TEXT.replace("dough", "clay")


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def address(writer: Writer, folder: Path) -> Iterator[str]:
    with page_server(writer, folder) as address:
        yield address


@pytest.fixture
def visitor(address: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of the page; no lesson is saved yet."""
    for saved in (folder / PAGE.corrections).glob("*"):
        saved.unlink()
    with new_visitor(address) as client:
        yield client


def _read(visitor: httpx.Client, *paths: Path) -> list[Any]:
    return answer(visitor, "read", [file_at(upload(visitor, path)) for path in paths], **SESSION)


def _chapters(visitor: httpx.Client, text: str = "", talk: str | None = None) -> tuple[str, list[list[str]], list[Any]]:
    """Return the message, the rows of the table, and the other values: course, lesson, version, timeline, ..."""
    said, table, _, *others = answer(visitor, "chapters", text, talk, 0, **SESSION)
    return said, table["data"], others


def _table(rows: list[list[str]]) -> dict[str, Any]:
    return {**TABLE, "data": rows}


def _save(visitor: httpx.Client, rows: list[list[str]], course: str, lesson: str, *, accept: bool = False) -> str:
    (said,) = answer(visitor, "save", _table(rows), course, lesson, accept, **SESSION)
    return said


def _saved(folder: Path) -> list[tuple[str, str, str]]:
    """Return the course, the lesson and the first words of each saved workbook."""
    books = [ingest(path).lines.iloc[0] for path in sorted((folder / PAGE.corrections).glob("*.xlsx"))]
    return [(line["course_title"], line["lesson_num"], line["text"][:14]) for line in books]


def test_a_new_talk_does_not_change_the_chapters_that_are_saved(
    visitor: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    _read(visitor, write_captions(tmp_path / "first.vtt"))
    _, rows, (course, lesson, *_) = _chapters(visitor)
    (tmp_path / "second.txt").write_text(OTHER_TALK, encoding="utf-8")
    _read(visitor, tmp_path / "second.txt")
    assert "Saved as" in _save(visitor, rows, course, lesson)
    assert _saved(folder) == [("first", "1", "knead the doug")]
    _, rows, (course, lesson, *_) = _chapters(visitor)
    assert "Saved as" in _save(visitor, rows, course, lesson)
    assert _saved(folder)[1] == ("second", "1", "knead the clay")


def test_pasted_talks_have_names_of_their_own(visitor: httpx.Client, folder: Path) -> None:
    for text in (AS_TEXT, OTHER_TALK, AS_TEXT):
        said, rows, (course, lesson, *_) = _chapters(visitor, text)
        assert "Saved as" in _save(visitor, rows, course, lesson), said
    names = {(course, lesson): words for course, lesson, words in _saved(folder)}
    assert sorted(names.values()) == ["knead the clay", "knead the doug"]
    assert {course for course, _ in names} == {"Pasted talk"}


def test_a_keyphrase_is_marked_and_saved_only_if_a_person_accepts_it(
    visitor: httpx.Client, writer: Writer, folder: Path
) -> None:
    writer.no_title_for = "telescope"
    try:
        said, rows, (course, lesson, _, timeline, *_) = _chapters(visitor, AS_TEXT)
    finally:
        writer.no_title_for = "no such word"
    assert "1 of the titles are keyphrases" in said
    assert timeline.count("keyphrase of the words") == 1
    rows[0][1] = "Bread"
    _, text = answer(visitor, "copy", _table(rows), course, lesson, "json", **SESSION)
    assert [each.get("fallback") for each in json.loads(text)[0]["chapters"]] == [None, "keyphrase: a keyphrase", None]
    assert "only keyphrases of the text" in _save(visitor, rows, course, lesson)
    assert _saved(folder) == []
    assert "Saved as" in _save(visitor, rows, course, lesson, accept=True)


def test_chapters_that_the_model_cannot_tell_apart_are_merged_but_known_topics_stay(
    visitor: httpx.Client, writer: Writer, tmp_path: Path
) -> None:
    lines = [("C", "1", line.seconds, line.text) for line in THREE_SUBJECTS.lines]
    book = write_book(tmp_path / "book.xlsx", [("C", "1", 40 * n, None) for n in range(5)], lines)
    writer.one_title = "Welcome"
    try:
        _, merged, *_ = answer(visitor, "chapters", AS_TEXT, None, 0.6, **SESSION)
        _read(visitor, book)
        _, kept, _ = _chapters(visitor)
    finally:
        writer.one_title = ""
    for rows, count in ((merged["data"], 3), (kept, 5)):
        assert (len(rows), len({title for _, title, *_ in rows})) == (count, count)


def test_an_untouched_table_is_accepted(visitor: httpx.Client, tmp_path: Path) -> None:
    lines = [("C", "1", line.seconds, line.text) for line in THREE_SUBJECTS.lines]
    topics = [("C", "1", 1.5 + n, f"Topic {n}") for n in range(PAGE.chapters - 1)]
    last = ("C", "1", THREE_SUBJECTS.end_seconds + 60, "After the last words")
    _read(visitor, write_book(tmp_path / "book.xlsx", [*topics, last], lines))
    said, rows, _ = _chapters(visitor)
    assert (len(rows), "a chapter at 0:00 was added" in said) == (PAGE.chapters + 1, True)
    assert "Saved as" in _save(visitor, rows, "", "")
    rows[1][1] = "A correction"
    assert "Saved as" in _save(visitor, rows, "", "")
    assert "The limit is 21." in _save(visitor, [*rows, ["3:00", "Another"]], "", "")


def test_each_of_several_files_is_a_talk(visitor: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "late.txt").write_text("10:00:00 hello\n10:00:30 you", encoding="utf-8")
    (tmp_path / "wrong.txt").write_text("no times", encoding="utf-8")
    paths = [write_captions(tmp_path / "talk.vtt"), tmp_path / "wrong.txt", tmp_path / "late.txt"]
    said, _, choice, *_ = _read(visitor, *paths)
    assert "wrong.txt has no times" in said
    assert "2 talks: 38 lines read" in said
    assert "late.txt: its clock starts at 10:00:00" in said
    talks = [label for label, _ in choice["choices"]]
    assert talks == ["1. talk.vtt, 3:36", "2. late.txt, 0:30"]
    assert _chapters(visitor, "", talks[1])[2][0] == "late"
    assert _chapters(visitor, "", talks[0])[2][0] == "talk"
    assert "wrong.txt has no times" in _read(visitor, tmp_path / "wrong.txt")[0]
    assert _chapters(visitor, "", talks[0])[2][0] == "talk", "the talks are still there"


def test_several_files_are_uploaded_at_once(visitor: httpx.Client) -> None:
    files = [("files", (f"{n}.txt", f"0:00 talk {n}".encode())) for n in range(3)]
    paths = visitor.post("/gradio_api/upload", files=files).json()
    assert "3 talks" in answer(visitor, "read", [file_at(path) for path in paths], **SESSION)[0]
    assert visitor.post("/gradio_api/upload", files=files * 7).status_code == 400


def test_the_example_has_chapters(visitor: httpx.Client) -> None:
    answer(visitor, "example", **SESSION)
    said, rows, (course, *_) = _chapters(visitor)
    assert ("3 chapters" in said, len(rows), course) == (True, 3, "Example")


def test_the_timeline_follows_the_edited_table(visitor: httpx.Client) -> None:
    _, rows, (_, _, _, timeline, *_) = _chapters(visitor, AS_TEXT)
    assert "flex-grow:72" in timeline
    rows[1] = ["1:00", "<b>Stars</b>"]
    said, timeline, *_ = answer(visitor, "timeline", _table(rows), **SESSION)
    assert (said, "flex-grow:60" in timeline, "&lt;b&gt;Stars" in timeline) == ("", True, True)
    said, *_ = answer(visitor, "timeline", _table([*rows, ["3:00", ""]]), **SESSION)
    assert "Row 4 (3:00) has no title" in said


def test_chapters_are_copied_as_text(visitor: httpx.Client) -> None:
    _, rows, _ = _chapters(visitor, AS_TEXT)
    said, text = answer(visitor, "copy", _table(rows), "", "", "youtube", **SESSION)
    assert ("Copied 3 chapters." in said, text) == (True, "".join(f"{time} {title}\n" for time, title in rows))
    said, text = answer(visitor, "copy", _table(rows), "", "", "xlsx", **SESSION)
    assert ("Download it" in said, text) == (True, "")


def test_after_saving_the_page_says_what_follows(visitor: httpx.Client) -> None:
    _, rows, _ = _chapters(visitor, AS_TEXT)
    commands = "\nlectern use data/raw/sample.xlsx 'my corrections'/*.xlsx\nlectern run\nlectern promote"
    assert _save(visitor, rows, "Course", "1").endswith(commands)


def test_all_talks_are_downloaded_at_once_with_their_corrections(visitor: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "second.txt").write_text(OTHER_TALK, encoding="utf-8")
    (tmp_path / "third.txt").write_text(OTHER_TALK.replace("clay", "snow"), encoding="utf-8")
    first = _read(visitor, write_captions(tmp_path / "first.vtt"))
    assert first[-1]["visible"] is False, "one talk needs no second button"
    _, _, choice, *_, button = _read(visitor, *(tmp_path / name for name in ("first.vtt", "second.txt", "third.txt")))
    assert button["visible"] is True
    talks = [label for label, _ in choice["choices"]]
    _, rows, _ = _chapters(visitor, "", talks[1])
    rows[0][1] = "Corrected before"
    answer(visitor, "timeline", _table(rows), **SESSION)
    _, rows, _ = _chapters(visitor, "", talks[0])
    rows[0][1] = "Corrected now"
    said, file = answer(visitor, "download_all", _table(rows), "second", "1", 0, "youtube", **SESSION)
    assert said == "chapters.zip: 3 talks."
    with ZipFile(BytesIO(visitor.get(f"/gradio_api/file={file['path']}").content)) as archive:
        texts = {name: archive.read(name).decode().split("\n")[0] for name in archive.namelist()}
    assert texts.pop("third-1.txt").startswith("0:00 ")
    assert texts == {"second-1.txt": "0:00 Corrected now", "second-1-2.txt": "0:00 Corrected before"}
