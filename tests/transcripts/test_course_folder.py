"""A folder of transcripts becomes one workbook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lectern.app import app
from pipeline.data.workbook import Workbook, ingest
from pipeline.errors import Rejected, UsageError

WORDS = "so now we look at the bread and how it rises in the warm oven"
LIST = [(0, "Salt and brine"), (60, "The jar")]


def captions(*, lines: int = 12, words: str = WORDS) -> str:
    cues = [f"00:{n // 6:02}:{n % 6 * 10:02}.000 --> 00:{n // 6:02}:{n % 6 * 10 + 9:02}.000\n" for n in range(lines)]
    return "WEBVTT\n\n" + "\n".join(f"{cue}{words} {n}\n" for n, cue in enumerate(cues))


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    (folder := tmp_path / "Baking").mkdir()
    (folder / "talk.vtt").write_text(captions())
    return folder


def transcripts(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["transcripts", *map(str, words)])


def written(*words: str | Path, folder: Path, code: int = 0) -> tuple[Workbook, Result]:
    """Run `lectern transcripts`, and return the workbook, which has no errors, and the result."""
    out = folder.parent / "course.xlsx"
    done = transcripts(*(words or [folder]), "--out", out, "--overwrite")
    assert done.exit_code == code, done.output
    return ingest(out), done


def lessons(book: Workbook) -> list[tuple[str, str]]:
    return [*dict.fromkeys(book.lines[["course_title", "lesson_num"]].itertuples(index=False, name=None))]


def topics(book: Workbook) -> list[tuple[float, str]]:
    return list(book.topics[["start_seconds", "title"]].itertuples(index=False, name=None))


def test_each_transcript_is_a_lesson_named_after_its_folder_and_file(talks: Path) -> None:
    (talks / "list.md").touch()
    (talks / "loop").symlink_to(talks)
    (talks / "earlier").mkdir()
    (talks / "earlier/lesson_topics.csv").touch()
    (talks / "Week 2").mkdir()
    for name in ("10.srt", "2.vtt", "Week 2/02a.vtt", ".hidden.vtt"):
        (talks / name).write_text(captions())
    (talks / "2.txt").write_text("0:00 Salt\n1:00 The jar\n")
    book, done = written(folder=talks)
    assert lessons(book) == [("Baking", "2"), ("Baking", "10"), ("Baking", "talk"), ("Week 2", "2A")]
    assert "4 lessons, 3 of them without topics" in done.stdout
    assert "Not used: earlier, list.md." in done.stderr
    book, _ = written(talks / "10.srt", talks / "2.vtt", talks / "2.txt", "--course", "Bread", folder=talks)
    assert (lessons(book), topics(book)) == ([("Bread", "2"), ("Bread", "10")], [(0, "Salt"), (60, "The jar")])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("talk.chapters.txt", "0:00 Salt and brine\n1:00 The jar"),
        ("talk.chapters.vtt", "WEBVTT\n\n00:00.000 --> 01:00.000\nSalt and brine\n\n01:00.000 --> 02:00.000\nThe jar"),
        ("talk.txt", "0:00 Salt and brine\n1:00 The jar"),
        ("talk.md", "- 0:00 Salt and brine\n- 1:00 The jar"),
        ("talk.csv", "timestamp,topic\n0:00,Salt and brine\n1:00,The jar"),
        ("talk.json", json.dumps({"chapters": [{"startTime": start, "title": title} for start, title in LIST]})),
        ("talk.info.json", json.dumps({"chapters": [{"start_time": start, "title": title} for start, title in LIST]})),
        ("talk.ffmetadata", ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\ntitle=Salt and brine\n[CHAPTER]\n"
         "TIMEBASE=1/1\nSTART=60\ntitle=The jar\n"),
    ],
)  # fmt: skip
def test_a_chapter_list_of_the_same_name_gives_the_topics(name: str, content: str, talks: Path) -> None:
    (talks / name).write_text(content)
    book, done = written(folder=talks)
    assert (topics(book), done.stderr) == (LIST, "")


def test_a_corrected_workbook_of_the_same_name_gives_the_topics(talks: Path) -> None:
    (talks / "talk.txt").write_text("0:00 Salt and brine\n1:00 The jar")
    written(folder=talks)
    (talks.parent / "course.xlsx").rename(talks / "talk.xlsx")
    (talks / "talk.txt").unlink()
    assert topics(written(folder=talks)[0]) == LIST


def test_a_list_without_a_language_belongs_to_captions_with_one(talks: Path) -> None:
    (talks / "talk.vtt").rename(talks / "talk.en.vtt")
    (talks / "talk.info.json").write_text(json.dumps({"chapters": [{"start_time": 0, "title": "Salt"}]}))
    book, done = written(folder=talks)
    assert (lessons(book), topics(book), done.stderr) == ([("Baking", "talk.en")], [(0, "Salt")], "")


def test_a_second_copy_of_a_transcript_is_no_chapter_list(talks: Path) -> None:
    (talks / "talk.txt").write_text("\n".join(f"{n // 6}:{n % 6 * 10:02} {WORDS}" for n in range(12)))
    (talks / "talk.json").write_text(json.dumps([{"text": WORDS, "start": 0, "end": 9}]))
    (talks / "talk.srt").write_text(captions())
    done = transcripts(talks, "--out", talks / "course.xlsx")
    assert (done.exit_code, "1 lessons, 1 of them without topics" in done.stdout) == (0, True)
    assert "Not used: talk.json, talk.srt, talk.txt." in done.stderr


def test_a_transcript_is_found_next_to_chapters_in_json(talks: Path) -> None:
    (talks / "talk.vtt").rename(talks / "talk.txt")
    (talks / "talk.json").write_text(json.dumps({"chapters": [{"startTime": 0, "title": "Salt"}]}))
    assert topics(written(folder=talks)[0]) == [(0, "Salt")]


def test_a_broken_file_is_named_and_the_others_are_written(talks: Path) -> None:
    (talks / "notes.txt").write_text("nothing has a time here")
    (talks / "02.vtt").write_text(captions())
    (talks / "2.vtt").write_text(captions())
    (talks / "long.txt").write_text(f"0:00 {'a ' * 20_000}")
    (talks / "listed.vtt").write_text(captions())
    (talks / "listed.chapters.txt").write_text("no times")
    (talks / "talk.txt").write_text("0:00 Salt")
    book, done = written(folder=talks, code=1)
    assert lessons(book) == [("Baking", "2"), ("Baking", "talk")]
    wanted = (
        "Left out notes.txt: notes.txt has no times", "Left out 2.vtt", "are both lesson 2 of Baking",
        "Left out long.txt", "32,767 characters", "Left out listed.vtt", "listed.chapters.txt has no topics",
    )  # fmt: skip
    assert not [words for words in wanted if words not in done.stderr]


def test_nothing_is_written_without_a_readable_transcript(talks: Path) -> None:
    (talks / "talk.vtt").write_text("WEBVTT")
    done = transcripts(talks, "--out", talks.parent / "course.xlsx")
    assert isinstance(done.exception, Rejected)
    assert "talk.vtt has no words" in str(done.exception)
    assert not (talks.parent / "course.xlsx").exists()


@pytest.mark.parametrize("words", [["Empty", "--out", "a.xlsx"], ["none", "--out", "a.xlsx"], ["Baking", "--out", "a"]])
def test_a_wrong_command_is_a_usage_error(words: list[str], talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(talks.parent)
    Path("Empty").mkdir()
    assert isinstance(transcripts(*words).exception, UsageError)
