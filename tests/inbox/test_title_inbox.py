from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.workbook import ingest
from pipeline.errors import Rejected, UsageError
from pipeline.inbox.outbox import TitledFile, read_titled, write_titled
from pipeline.inbox.title_inbox import FolderResult, title_inbox
from pipeline.titles import batch_titling
from pipeline.titles.served_version import find_served_version
from tests.command import lectern
from tests.flows import promotable
from tests.titles.small import register, write_book

TOPICS = [("C", "1", "0:00:00", None)]
LINES = [("C", "1", "0:00:01", "we talk about graphs")]


@pytest.fixture
def inbox(shared_project: Path, tmp_path: Path) -> Path:
    return _make_inbox(tmp_path / "inbox")


@pytest.fixture
def own_inbox(project: Path, examples: pd.DataFrame) -> Path:
    """An inbox in a project of its own, where a test may register more versions."""
    register(project / "small", examples)
    return _make_inbox(project / "inbox")


def _make_inbox(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.txt").write_text("we talk about graphs", encoding="utf-8")
    (folder / "b.txt").write_text("we talk about threads", encoding="utf-8")
    write_book(folder / "week.xlsx", TOPICS, LINES)
    return folder


def _title(inbox: Path, *, again: bool = False) -> FolderResult:
    return title_inbox(inbox, inbox.parent / "titles", find_served_version(), again=again)


def test_a_broken_file_is_reported_and_the_others_are_titled(inbox: Path, shared_project: Path) -> None:
    outbox = inbox.parent / "titles"
    (inbox / "latin.txt").write_bytes(b"caf\xe9")
    (inbox / "empty.txt").write_text("\n")
    (inbox / "broken.xlsx").write_bytes(b"PK no workbook")
    (inbox / "talk.vtt").write_text("WEBVTT")
    done = lectern("title", inbox, "--out", outbox, cwd=shared_project)
    assert done.returncode == 1, done.stderr
    rows = read_titled(outbox)
    assert {row.file for row in rows} == {"a.txt", "b.txt", "week.xlsx"}
    assert all(row.title or row.workbook for row in rows)
    assert lectern("check", outbox / "week.titled.xlsx", cwd=shared_project).returncode == 0
    for word in (
        "3 files titled",
        "latin.txt: It is not UTF-8",
        "empty.txt: It is empty",
        "broken.xlsx: ",
        "talk",
    ):
        assert word in done.stdout


def test_transcripts_of_any_format_become_workbooks_with_chapters(inbox: Path) -> None:
    spoken = [(6 * n, f"we talk about {'graphs' if n < 20 else 'threads'} and the number {n}") for n in range(40)]
    (inbox / "talk.txt").write_text("\n".join(f"{s // 60}:{s % 60:02} {text}" for s, text in spoken))
    (inbox / "tv.json").write_text(json.dumps([{"start": s, "end": s + 6, "text": text} for s, text in spoken]))
    (inbox / "tv.chapters.txt").write_text("0:00 Graphs\n2:00 Threads")
    (inbox / "note.txt").write_text("we meet again\n10:30 is a good time\nfor graphs")
    (inbox / "talk.mp4").touch()
    done = _title(inbox)
    assert (done.failed, done.ignored) == ({}, ["talk.mp4"])
    rows = {row.file: row for row in done.titled}
    assert (rows["talk.txt"].workbook, rows["tv.json"].workbook) == ("talk.txt.titled.xlsx", "tv.json.titled.xlsx")
    assert (bool(rows["note.txt"].title), rows["note.txt"].workbook) == (True, "")
    outbox = inbox.parent / "titles"
    assert len(ingest(outbox / "talk.txt.titled.xlsx").topics) == 3
    assert ingest(outbox / "tv.json.titled.xlsx").topics["title"].tolist() == ["Graphs", "Threads"]

    (inbox / "tv.chapters.txt").write_text("0:00 All of it")
    assert [row.file for row in _title(inbox).titled] == ["tv.json"]


def test_a_broken_file_is_a_new_failure_once_and_again_after_it_has_changed(inbox: Path) -> None:
    (inbox / "empty.txt").write_text("\n")
    (inbox / "broken.xlsx").write_bytes(b"PK no workbook")
    first = _title(inbox)
    assert (first.has_new_failures, first.failed_before) == (True, [])

    second = _title(inbox)
    assert (second.has_new_failures, sorted(second.failed_before)) == (False, ["broken.xlsx", "empty.txt"])
    assert sorted(second.failed) == ["broken.xlsx", "empty.txt"]
    assert "as before, empty.txt: It is empty" in second.summary()

    (inbox / "broken.xlsx").write_bytes(b"PK another one")
    third = _title(inbox)
    assert (third.has_new_failures, third.failed_before) == (True, ["empty.txt"])

    (inbox / "empty.txt").write_text("we talk about queues", encoding="utf-8")
    (inbox / "broken.xlsx").unlink()
    assert _title(inbox).failed == {}
    (inbox / "empty.txt").write_text("\n")
    assert _title(inbox).has_new_failures


def test_an_unreadable_file_is_always_a_new_failure(inbox: Path) -> None:
    (inbox / "gone.txt").symlink_to(inbox / "nowhere")
    assert _title(inbox).has_new_failures
    assert _title(inbox).has_new_failures


def test_tell_once_exits_with_1_only_for_new_failures(inbox: Path, shared_project: Path) -> None:
    outbox = inbox.parent / "titles"
    (inbox / "empty.txt").write_text("\n")
    command = ("title", inbox, "--out", outbox, "--tell-once")
    assert [lectern(*command, cwd=shared_project).returncode for _ in range(2)] == [1, 0]
    assert lectern("title", inbox, "--out", outbox, cwd=shared_project).returncode == 1


def test_a_file_is_titled_once_by_its_content(inbox: Path) -> None:
    assert len(_title(inbox).titled) == 3
    (inbox / "a.txt").write_text("we talk about hashing", encoding="utf-8")
    again = _title(inbox)
    assert ([row.file for row in again.titled], again.titled_before) == (["a.txt"], 2)
    assert _title(inbox).titled == []


def test_a_copy_gets_the_title_of_its_original(inbox: Path) -> None:
    titles = {row.file: row.title for row in _title(inbox).titled}
    (inbox / "copy.txt").write_bytes((inbox / "a.txt").read_bytes())
    (copy,) = _title(inbox).titled
    assert (copy.file, copy.title) == ("copy.txt", titles["a.txt"])


def test_another_version_replaces_only_with_again(own_inbox: Path, project: Path, examples: pd.DataFrame) -> None:
    first = _title(own_inbox).titled
    register(project / "small", examples, beams=2)
    assert _title(own_inbox).titled == []
    again = _title(own_inbox, again=True).titled
    assert {row.file for row in again} == {row.file for row in first}
    assert {row.version for row in again}.isdisjoint({row.version for row in first})
    assert _title(own_inbox, again=True).titled == []


def test_after_a_rollback_again_replaces_the_titles_of_the_other_version(
    own_inbox: Path, project: Path, examples: pd.DataFrame
) -> None:
    first = find_served_version()
    _title(own_inbox)
    register(project / "small", examples, beams=2)
    _title(own_inbox, again=True)
    back = title_inbox(own_inbox, project / "titles", first, again=True).titled
    assert {row.file for row in back} == {"a.txt", "b.txt", "week.xlsx"}
    assert title_inbox(own_inbox, project / "titles", first, again=True).titled == []


def test_a_workbook_with_restored_content_is_titled_again(inbox: Path) -> None:
    before = (inbox / "week.xlsx").read_bytes()
    _title(inbox)
    write_book(inbox / "week.xlsx", TOPICS, [("C", "1", "0:00:01", "we talk about threads")])
    _title(inbox)
    (inbox / "week.xlsx").write_bytes(before)
    assert [row.file for row in _title(inbox).titled] == ["week.xlsx"]


def test_a_corrected_workbook_in_the_outbox_is_kept(own_inbox: Path, project: Path, examples: pd.DataFrame) -> None:
    _title(own_inbox)
    titled = project / "titles/week.titled.xlsx"
    titled.write_bytes(b"corrected by hand")
    os.utime(titled, (2_000_000_000, 2_000_000_000))
    register(project / "small", examples, beams=2)
    _title(own_inbox, again=True)
    assert (project / "titles/week.titled.20330518T033320Z.xlsx").read_bytes() == b"corrected by hand"
    assert lectern("check", titled, cwd=project).returncode == 0


def test_a_deleted_titled_workbook_is_written_again(inbox: Path) -> None:
    _title(inbox)
    (inbox.parent / "titles/week.titled.xlsx").unlink()
    assert [row.file for row in _title(inbox).titled] == ["week.xlsx"]


def test_the_inbox_cannot_be_the_outbox(inbox: Path) -> None:
    with pytest.raises(UsageError, match="other than the inbox"):
        title_inbox(inbox, inbox, find_served_version())


@pytest.mark.parametrize("title", ["=1+1", "+1", "-1", "@a", "'quoted", "''", 'a "b", c', "Why graphs matter"])
def test_a_title_is_text_in_a_spreadsheet_and_is_read_back_unchanged(title: str, tmp_path: Path) -> None:
    row = TitledFile("=a.txt", "0", title, "", "titles/1", "2026-01-01T00:00:00Z")
    write_titled(tmp_path, [row])
    assert read_titled(tmp_path) == [row]
    assert not any(
        cell.startswith(("=", "+", "-", "@")) for cell in (tmp_path / "titles.csv").read_text()[1:].split(",")
    )


def test_a_foreign_titles_csv_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "titles.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Rejected, match="lacks some of the columns"):
        read_titled(tmp_path)


def test_a_keyphrase_is_marked_as_a_fallback(project: Path, examples: pd.DataFrame) -> None:
    register(project / "mute", examples, mute=True)
    (project / "inbox").mkdir()
    (project / "inbox/a.txt").write_text("we talk about graphs", encoding="utf-8")
    done = _title(project / "inbox")
    assert [(row.title, row.fallback) for row in done.titled] == [("talk about graphs", "keyphrase")]
    assert read_titled(project / "titles") == done.titled
    assert "a keyphrase" in done.summary()


def test_a_titles_csv_without_the_fallback_column_is_read(tmp_path: Path) -> None:
    row = TitledFile("a.txt", "0", "Graphs", "", "titles/1", "2026-01-01T00:00:00Z")
    write_titled(tmp_path, [row])
    table = (tmp_path / "titles.csv").read_text(encoding="utf-8-sig")
    (tmp_path / "titles.csv").write_text(
        "\n".join(line.removesuffix(",fallback").removesuffix(",") for line in table.split())
    )
    assert read_titled(tmp_path) == [row]


def test_a_version_that_another_program_registered_is_refused(project: Path) -> None:
    promotable.register(["graphs"])
    (project / "inbox").mkdir()
    (project / "inbox/a.txt").write_text("we talk about graphs", encoding="utf-8")
    with pytest.raises(Rejected, match=r"^Version 1 of 'lectern' cannot be loaded: `lectern register` did not write"):
        _title(project / "inbox")


def test_odd_entries_of_the_inbox_do_not_stop_the_others(inbox: Path) -> None:
    (inbox / os.fsdecode(b"caf\xe9.txt")).write_text("we talk about queues", encoding="utf-8")
    os.mkfifo(inbox / "pipe.txt")
    result = _title(inbox)
    assert sorted(row.file for row in result.titled) == ["a.txt", "b.txt", "caf\\udce9.txt", "week.xlsx"]
    assert "pipe" in result.failed["pipe.txt"]
    assert {row.file for row in read_titled(inbox.parent / "titles")} == {row.file for row in result.titled}


def test_a_workbook_that_vanishes_during_a_run_is_reported(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = batch_titling.log_batch  # called after the texts are titled and before the workbooks are

    def remove_workbook(*given: object) -> None:
        (inbox / "week.xlsx").unlink()
        log(*given)

    monkeypatch.setattr(batch_titling, "log_batch", remove_workbook)
    result = _title(inbox)
    assert (len(result.titled), "does not exist" in result.failed["week.xlsx"]) == (2, True)


def test_columns_that_a_person_added_to_the_titles_are_kept(tmp_path: Path) -> None:
    row = TitledFile("a.txt", "1", "Graphs", "", "titles/1", "2026-01-01T00:00:00Z")
    write_titled(tmp_path, [row])
    lines = (tmp_path / "titles.csv").read_text(encoding="utf-8-sig").splitlines()
    (tmp_path / "titles.csv").write_text(f"{lines[0]},checked by\n{lines[1]},Ana\n", encoding="utf-8-sig")
    write_titled(tmp_path, [*read_titled(tmp_path), row])
    written = pd.read_csv(tmp_path / "titles.csv", keep_default_na=False)
    assert written["checked by"].tolist() == ["Ana", ""]
