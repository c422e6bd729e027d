from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import Rejected, UsageError
from pipeline.titles.folder import title_inbox
from pipeline.titles.outbox import TitledFile, read_titled, write_titled
from pipeline.titles.served_version import find_served_version
from tests.command import lectern
from tests.flows import promotable
from tests.titles.small import register, write_book

TOPICS = [("C", "1", "0:00:00", None)]
LINES = [("C", "1", "0:00:01", "we talk about graphs")]


@pytest.fixture
def inbox(project: Path, examples: pd.DataFrame) -> Path:
    register(project / "small", examples)
    folder = project / "inbox"
    folder.mkdir()
    (folder / "a.txt").write_text("we talk about graphs", encoding="utf-8")
    (folder / "b.txt").write_text("we talk about threads", encoding="utf-8")
    write_book(folder / "week.xlsx", TOPICS, LINES)
    return folder


def _walk(inbox: Path, *, again: bool = False):
    return title_inbox(inbox, inbox.parent / "titles", find_served_version(), again=again)


def test_a_broken_file_is_reported_and_stops_no_other(inbox: Path, project: Path) -> None:
    (inbox / "latin.txt").write_bytes(b"caf\xe9")
    (inbox / "empty.txt").write_text("\n")
    (inbox / "broken.xlsx").write_bytes(b"PK no workbook")
    (inbox / "talk.vtt").write_text("WEBVTT")
    done = lectern("title", inbox, "--out", "titles", cwd=project)
    assert done.returncode == 1, done.stderr
    rows = read_titled(project / "titles")
    assert {row.file for row in rows} == {"a.txt", "b.txt", "week.xlsx"}
    assert all(row.title or row.workbook for row in rows)
    assert lectern("check", "titles/week.titled.xlsx", cwd=project).returncode == 0
    for word in (
        "3 files titled",
        "latin.txt: It is not UTF-8",
        "empty.txt: It is empty",
        "broken.xlsx: ",
        "talk",
    ):
        assert word in done.stdout


def test_a_broken_file_is_news_until_it_was_told_of_and_again_once_it_has_changed(inbox: Path, project: Path) -> None:
    (inbox / "empty.txt").write_text("\n")
    (inbox / "broken.xlsx").write_bytes(b"PK no workbook")
    first = _walk(inbox)
    assert (first.has_new_failures, first.failed_before) == (True, [])

    second = _walk(inbox)
    assert (second.has_new_failures, sorted(second.failed_before)) == (False, ["broken.xlsx", "empty.txt"])
    assert sorted(second.failed) == ["broken.xlsx", "empty.txt"]
    assert "as before, empty.txt: It is empty" in second.summary()

    (inbox / "broken.xlsx").write_bytes(b"PK another one")
    third = _walk(inbox)
    assert (third.has_new_failures, third.failed_before) == (True, ["empty.txt"])

    (inbox / "empty.txt").write_text("we talk about queues", encoding="utf-8")
    (inbox / "broken.xlsx").unlink()
    assert _walk(inbox).failed == {}
    (inbox / "empty.txt").write_text("\n")
    assert _walk(inbox).has_new_failures


def test_what_a_disk_or_a_folder_refuses_is_always_news(inbox: Path) -> None:
    (inbox / "gone.txt").symlink_to(inbox / "nowhere")
    assert _walk(inbox).has_new_failures
    assert _walk(inbox).has_new_failures


def test_a_broken_file_ends_the_command_with_1_once_where_that_is_asked(inbox: Path, project: Path) -> None:
    (inbox / "empty.txt").write_text("\n")
    command = ("title", inbox, "--out", "titles", "--tell-once")
    assert [lectern(*command, cwd=project).returncode for _ in range(2)] == [1, 0]
    assert lectern("title", inbox, "--out", "titles", cwd=project).returncode == 1


def test_a_file_is_titled_once_by_its_content(inbox: Path) -> None:
    assert len(_walk(inbox).titled) == 3
    (inbox / "a.txt").write_text("we talk about hashing", encoding="utf-8")
    again = _walk(inbox)
    assert ([row.file for row in again.titled], again.titled_before) == (["a.txt"], 2)
    assert _walk(inbox).titled == []


def test_a_copy_has_the_title_of_its_original(inbox: Path) -> None:
    titles = {row.file: row.title for row in _walk(inbox).titled}
    (inbox / "copy.txt").write_bytes((inbox / "a.txt").read_bytes())
    (copy,) = _walk(inbox).titled
    assert (copy.file, copy.title) == ("copy.txt", titles["a.txt"])


def test_another_version_titles_anew_only_if_asked(inbox: Path, project: Path, examples: pd.DataFrame) -> None:
    first = _walk(inbox).titled
    register(project / "small", examples, beams=2)
    assert _walk(inbox).titled == []
    again = _walk(inbox, again=True).titled
    assert {row.file for row in again} == {row.file for row in first}
    assert {row.version for row in again}.isdisjoint({row.version for row in first})
    assert _walk(inbox, again=True).titled == []


def test_after_a_rollback_what_another_version_has_titled_is_titled_anew(
    inbox: Path, project: Path, examples: pd.DataFrame
) -> None:
    first = find_served_version()
    _walk(inbox)
    register(project / "small", examples, beams=2)
    _walk(inbox, again=True)
    back = title_inbox(inbox, project / "titles", first, again=True).titled
    assert {row.file for row in back} == {"a.txt", "b.txt", "week.xlsx"}
    assert title_inbox(inbox, project / "titles", first, again=True).titled == []


def test_a_workbook_that_comes_back_with_what_it_held_is_titled_anew(inbox: Path) -> None:
    before = (inbox / "week.xlsx").read_bytes()
    _walk(inbox)
    write_book(inbox / "week.xlsx", TOPICS, [("C", "1", "0:00:01", "we talk about threads")])
    _walk(inbox)
    (inbox / "week.xlsx").write_bytes(before)
    assert [row.file for row in _walk(inbox).titled] == ["week.xlsx"]


def test_what_a_person_has_corrected_in_the_outbox_is_kept(inbox: Path, project: Path, examples: pd.DataFrame) -> None:
    _walk(inbox)
    titled = project / "titles/week.titled.xlsx"
    titled.write_bytes(b"corrected by hand")
    os.utime(titled, (2_000_000_000, 2_000_000_000))
    register(project / "small", examples, beams=2)
    _walk(inbox, again=True)
    assert (project / "titles/week.titled.20330518T033320Z.xlsx").read_bytes() == b"corrected by hand"
    assert lectern("check", titled, cwd=project).returncode == 0


def test_a_filled_workbook_that_is_gone_is_made_again(inbox: Path, project: Path) -> None:
    _walk(inbox)
    (project / "titles/week.titled.xlsx").unlink()
    assert [row.file for row in _walk(inbox).titled] == ["week.xlsx"]


def test_the_inbox_is_no_outbox(inbox: Path) -> None:
    with pytest.raises(UsageError, match="other than the inbox"):
        title_inbox(inbox, inbox, find_served_version())


@pytest.mark.parametrize("title", ["=1+1", "+1", "-1", "@a", "'quoted", "''", 'a "b", c', "Why graphs matter"])
def test_a_title_is_text_to_a_spreadsheet_and_comes_back_as_it_was(title: str, tmp_path: Path) -> None:
    row = TitledFile("=a.txt", "0", title, "", "titles/1", "2026-01-01T00:00:00Z")
    write_titled(tmp_path, [row])
    assert read_titled(tmp_path) == [row]
    assert not any(
        cell.startswith(("=", "+", "-", "@")) for cell in (tmp_path / "titles.csv").read_text()[1:].split(",")
    )


def test_a_table_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "titles.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Rejected, match="lacks some of the columns"):
        read_titled(tmp_path)


def test_a_keyphrase_that_stands_in_is_marked(project: Path, examples: pd.DataFrame) -> None:
    register(project / "mute", examples, mute=True)
    (project / "inbox").mkdir()
    (project / "inbox/a.txt").write_text("we talk about graphs", encoding="utf-8")
    done = _walk(project / "inbox")
    assert [(row.title, row.fallback) for row in done.titled] == [("talk about graphs", "keyphrase")]
    assert read_titled(project / "titles") == done.titled
    assert "a keyphrase" in done.summary()


def test_a_table_of_before_keyphrases_were_marked_is_ours(tmp_path: Path) -> None:
    row = TitledFile("a.txt", "0", "Graphs", "", "titles/1", "2026-01-01T00:00:00Z")
    write_titled(tmp_path, [row])
    table = (tmp_path / "titles.csv").read_text(encoding="utf-8-sig")
    (tmp_path / "titles.csv").write_text(
        "\n".join(line.removesuffix(",fallback").removesuffix(",") for line in table.split())
    )
    assert read_titled(tmp_path) == [row]


def test_a_version_from_before_keyphrases_stood_in_still_gives_its_titles(project: Path) -> None:
    promotable.register(["graphs"])
    (project / "inbox").mkdir()
    (project / "inbox/a.txt").write_text("we talk about graphs", encoding="utf-8")
    assert [(row.title, row.fallback) for row in _walk(project / "inbox").titled] == [("Why graphs matter", "")]
