from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from unicodedata import normalize

import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from lectern.app import app
from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.data.workbook import ingest
from pipeline.errors import Rejected, UsageError
from pipeline.evaluation.title_words import title_key
from pipeline.registry.chapter_titles import add_titles
from pipeline.registry.fallback_title import Shown
from pipeline.settings import set_params
from pipeline.transcripts import chapter_files
from pipeline.transcripts.automatic_note import NOTE, NOTES
from pipeline.transcripts.chapter import Chapter, ChapteredTranscript
from pipeline.transcripts.known_topics import read_topics, replace_topics
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.timestamps import youtube_time
from pipeline.transcripts.transcript import Line, Topic, Transcript
from tests.chapters.test_segmentation import transcript_about
from tests.command import lectern
from tests.conftest import ROOT
from tests.titles.small import register, write_book

THREE = transcript_about("bread", "stars", "goals")
SETTINGS = ChaptersSettings.read(ROOT / "params.yaml")


@pytest.fixture
def titled(project: Path, examples: pd.DataFrame) -> Path:
    """A project with a registered version and captions about three subjects."""
    register(project / "small", examples)
    cues = [f"{_time(line.seconds)} --> {_time(line.seconds + 6)}\n{line.text}\n" for line in THREE.lines]
    (project / "talk.vtt").write_text("\n".join(["WEBVTT\n", *cues]))
    return project


def _time(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{int(seconds) % 60:02}.000"


def chapters(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["chapters", *map(str, words)])


def test_a_transcript_becomes_a_workbook_that_is_checked_corrected_and_read_again(titled: Path) -> None:
    done = lectern("chapters", "talk.vtt", "--out", "talk.xlsx", cwd=titled)
    assert (done.returncode, "3 chapters, 0 with a known title" in done.stdout) == (0, True), done.stderr
    assert not list((titled / ".lectern/titles").iterdir())
    starts = (
        ingest(titled / "talk.xlsx").topics["start_seconds"].tolist()
    )  # raises if `lectern check` would find errors
    book = openpyxl.load_workbook("talk.xlsx")
    book["lesson_topics"]["D2"].value = "Bread & <butter>"
    book["lesson_topics"]["D3"].value = None
    book.save("talk.xlsx")
    again = chapters("talk.vtt", "--topics", "talk.xlsx")
    assert again.exit_code == 0, again.stderr
    lines = again.stdout.splitlines()
    assert lines[0] == "0:00 Bread & ‹butter›"
    assert [line.split(maxsplit=1)[0] for line in lines] == [youtube_time(start) for start in starts]
    assert all(line.split(maxsplit=1)[1] for line in lines)


def test_each_lesson_of_a_workbook_gets_chapters_and_keeps_its_topics(titled: Path) -> None:
    lines = [("C", lesson, line.seconds, line.text) for lesson in ("1", "2A") for line in THREE.lines]
    book = write_book(titled / "week.xlsx", [("C", "2A", "0:00", "=Kept"), ("C", "2A", "1:00", None)], lines)
    done = chapters(book, "--count", "4", "--format", "json")
    assert done.exit_code == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["lesson_num"], len(first["chapters"])) == ("1", 4)
    assert [(each["start_seconds"], bool(each["title"])) for each in second["chapters"]] == [(0, True), (60, True)]
    assert second["chapters"][0]["title"] == "=Kept"
    assert "2 lessons" in str(chapters(book, "--format", "vtt").exception)


def test_written_titles_keep_the_limit_of_characters_and_known_ones_stay(titled: Path) -> None:
    set_params(["titles"], {"longest": 10})
    (titled / "topics.txt").write_text("0:00 A title of somebody who likes them long\n1:00\n2:00\n")
    done = chapters("talk.vtt", "--topics", "topics.txt", "--format", "json")
    known, *written = [each["title"] for each in json.loads(done.stdout)[0]["chapters"]]
    assert (known, [title for title in written if not 0 < len(title) <= 10]) == (
        "A title of somebody who likes them long",
        [],
    )


def test_chapters_that_the_model_cannot_tell_apart_are_merged_unless_their_number_is_fixed(
    titled: Path, examples: pd.DataFrame
) -> None:
    shutil.rmtree(titled / "small")
    register(titled / "small", examples, same=True)
    set_params(["chapters"], {"minutes": 0.6})

    def titles(*words: str) -> list[str]:
        done = chapters("talk.vtt", *words, "--format", "json")
        return [each["title"] for each in json.loads(done.stdout)[0]["chapters"]]

    (titled / "topics.txt").write_text("0:00\n0:36\n1:12\n2:00\n3:00\n")
    for merged, words in ((3, ()), (6, ("--count", "6")), (5, ("--topics", "topics.txt"))):
        found = titles(*words)
        assert (len(found), len(set(map(title_key, found)))) == (merged, merged)


def test_topics_of_a_lesson_without_lines_are_kept(project: Path) -> None:
    topics = [("C", "4", "1:00", "Alone"), ("C", "4", "2:00", None), ("C", "1", "0:00", "Known")]
    book = write_book(project / "week.xlsx", topics, [("C", "1", "0:01", "so now we begin")])
    done = chapters(book, "--out", "new.xlsx")
    assert (done.exit_code, "lesson 4 of C: no title was written for chapter 2" in done.stderr) == (0, True)
    written = ingest(project / "new.xlsx").topics  # raises if `lectern check` would find errors
    assert written[["lesson_num", "start_seconds", "title"]].values.tolist() == [
        ["1", 0.0, "Known"], ["4", 60.0, "Alone"], ["4", 120.0, "Chapter 2"],
    ]  # fmt: skip
    assert chapters(book, "--topics", "new.xlsx", "--format", "csv").stdout.count("\n") == 4


def test_a_version_is_needed_only_for_missing_titles(project: Path) -> None:
    (project / "talk.txt").write_text("0:00 so now we begin")
    (project / "topics.txt").write_text("0:00 Beginning")
    set_params(["register"], {"pretrained": None})
    refused = chapters("talk.txt").exception
    assert isinstance(refused, Rejected)
    assert "lectern run" in str(refused)
    done = chapters("talk.txt", "--topics", "topics.txt", "--format", "md")
    assert (done.exit_code, done.stdout) == (0, "## talk, lesson 1\n\n- 0:00 Beginning\n"), done.exception
    done = chapters("talk.txt", "--topics", "topics.txt", "--note")
    assert done.stdout == "0:00 Beginning\n\nChapters written automatically\n"


@pytest.mark.parametrize(
    "words",
    [
        ["none.vtt"],
        ["talk.txt", "--format", "pdf"],
        ["talk.txt", "--format", "xlsx"],
        ["talk.txt", "--out", "talk.doc"],
        ["talk.txt", "--out", "talk.txt", "--overwrite"],
        ["talk.txt", "--out", "week.xlsx"],
        ["talk.txt", "--count", "3", "--minutes", "2"],
        ["talk.txt", "--count", "3", "--topics", "talk.txt"],
        ["talk.txt", "--topics", "none.csv"],
        ["talk.txt", "--overwrite"],
        ["talk.txt", "--note", "--format", "csv"],
        ["week.xlsx", "--count", "3"],
    ],
)
def test_a_wrong_command_is_a_usage_error(words: list[str], project: Path) -> None:
    (project / "talk.txt").write_text("0:00 so now we begin")
    write_book(project / "week.xlsx", [("C", "1", "0:00", "Known")], [("C", "1", "0:00", "so now we begin")])
    assert isinstance(chapters(*words).exception, UsageError)


def test_the_first_chapter_gets_the_usual_title_of_openings(project: Path, examples: pd.DataFrame) -> None:
    register(project / "small", examples, opening="Intro")
    (project / "talk.txt").write_text("\n".join(f"{youtube_time(line.seconds)} {line.text}" for line in THREE.lines))
    done = lectern("chapters", "talk.txt", "--format", "json", cwd=project)
    titles = [each["title"] for each in json.loads(done.stdout)[0]["chapters"]]
    assert (titles[0], "Intro" in titles[1:]) == ("Intro", False)


def chaptered(*titles: str, course: str = "C", number: str = "1") -> ChapteredTranscript:
    lines = [Line(60.0 * n, f"word {n}") for n in range(len(titles))]
    talk = Transcript(course, number, lines, 60.0 * len(titles))
    return ChapteredTranscript(
        talk, [Chapter(60.0 * n, 60.0 * (n + 1), title, f"word {n}") for n, title in enumerate(titles)]
    )


def test_lines_before_the_first_topic_get_a_chapter() -> None:
    talk = Transcript(
        "C", "1", [Line(0.0, "hello"), Line(70.0, "so")], 80.0, [Topic(60.0, "Start"), Topic(300.0, "Nothing")]
    )
    done = add_titles(divide_transcript(talk, SETTINGS), {"[lecture begins] hello": Shown("Greeting", False)})
    assert [(each.start_seconds, each.title, each.text) for each in done.chapters] == [
        (0.0, "Greeting", "hello"), (60.0, "Start", "so"), (300.0, "Nothing", ""),
    ]  # fmt: skip
    assert "added" in done.remarks()[0]


@pytest.mark.parametrize(
    ("seconds", "opening"),
    [([1.0, 61.0], [True, False, False]), ([61.0, 121.0], [False, True, False]), ([1.0], [False] * 3)],
)
def test_the_first_chapter_with_words_is_the_opening_if_others_follow(
    seconds: list[float], opening: list[bool]
) -> None:
    topics = [Topic(start, "Known") for start in (0.0, 60.0, 120.0)]
    talk = Transcript("C", "1", [Line(second, "so") for second in seconds], 180.0, topics)
    assert [chapter.opens for chapter in divide_transcript(talk, SETTINGS).chapters] == opening


def test_a_chapter_without_a_title_gets_its_number_and_a_remark() -> None:
    done = add_titles(chaptered("Intro", "", "End"), {"word 1": Shown(" \0 ", False)})
    assert [each.title for each in done.chapters] == ["Intro", "Chapter 2", "End"]
    assert "chapter 2" in done.remarks()[0]


def test_the_name_of_a_speaker_is_no_title() -> None:
    talk = Transcript("C", "1", [Line(0.0, "hello", "Ana Lopez"), Line(9.0, "so", "Ben")], 20.0)
    talk = replace(talk, topics=[Topic(0.0, ""), Topic(5.0, "Ben"), Topic(9.0, "")])
    done = add_titles(
        divide_transcript(talk, SETTINGS),
        {"[lecture begins] hello": Shown("Lopez", False), "so": Shown("Ana and Ben", False)},
    )
    assert [each.title for each in done.chapters] == ["Chapter 1", "Ben", "Ana and Ben"]
    assert [each.text for each in done.chapters] == ["hello", "", "so"]


def test_keyphrases_get_a_remark() -> None:
    done = add_titles(chaptered("Intro", "", ""), {"word 1": Shown("One", False), "word 2": Shown("Two", True)})
    assert done.keyphrases == (3,)
    assert "keyphrases" in done.remarks()[0]
    assert "chapter 3" in done.remarks()[0]


@pytest.mark.parametrize("name", ["csv", "json", "xlsx"])
def test_fallback_titles_are_read_back_as_empty(name: str, tmp_path: Path) -> None:
    done = add_titles(
        chaptered("Intro", "", "", "", "Chapter 5"), {"word 1": Shown("=Two", True), "word 2": Shown("Three", False)}
    )
    assert [each.title for each in done.chapters] == ["Intro", "=Two", "Three", "Chapter 4", "Chapter 5"]
    chapter_files.write_chapters([done], tmp_path / f"a.{name}", name)
    (topics,) = read_topics(tmp_path / f"a.{name}").values()
    assert [topic.title for topic in topics] == ["Intro", "", "Three", "", "Chapter 5"]


def test_a_corrected_fallback_is_read_back_as_a_title(tmp_path: Path) -> None:
    chapter_files.write_chapters(
        [add_titles(chaptered("", ""), {"word 0": Shown("One", True)})], tmp_path / "a.xlsx", "xlsx"
    )
    assert ingest(tmp_path / "a.xlsx").topics["title"].tolist() == ["One", "Chapter 2"]
    book = openpyxl.load_workbook(tmp_path / "a.xlsx")
    book["lesson_topics"]["D3"].value = "Mine"
    book.save(tmp_path / "a.xlsx")
    (topics,) = read_topics(tmp_path / "a.xlsx").values()
    assert [topic.title for topic in topics] == ["", "Mine"]
    assert [topic.title for topic in read_transcripts(tmp_path / "a.xlsx")[0].topics] == ["", "Mine"]


def test_a_keyphrase_is_written_again(project: Path, examples: pd.DataFrame) -> None:
    register(project / "mute", examples, mute=True)
    (project / "talk.txt").write_text("0:00 we talk about graphs\n1:00 we talk about threads")
    (project / "topics.txt").write_text("0:00 Kept\n1:00\n")
    for topics, out in (("topics.txt", "a.csv"), ("a.csv", "b.xlsx"), ("b.xlsx", "c.xlsx")):
        done = chapters("talk.txt", "--topics", topics, "--out", out)
        assert (done.exit_code, "2 chapters, 1 with a known title" in done.stdout) == (0, True), done.exception
    row = [cell.value for cell in openpyxl.load_workbook("c.xlsx")["lesson_topics"][3]]
    assert row[3:] == ["talk about threads", "keyphrase: talk about threads"]


def test_youtube_chapters_start_at_zero_and_too_few_get_a_remark() -> None:
    done = chaptered("Intro", "End")
    late = ChapteredTranscript(done.transcript, [Chapter(4.0, 60.0, "Intro", "a"), Chapter(3661.5, 3700.0, "End", "b")])
    assert chapter_files.as_youtube([late]) == "0:00 Intro\n1:01:01 End\n"
    assert "3 or more" in chapter_files.remarks(late, "youtube")[0]
    assert not chapter_files.remarks(late, "csv")


def test_webvtt_has_titles_as_text() -> None:
    text = chapter_files.as_webvtt([chaptered("a --> b & <i>c</i>", "End")])
    assert text.startswith(
        "WEBVTT\n\n00:00:00.000 --> 00:01:00.000\na --&gt; b &amp; &lt;i&gt;c&lt;/i&gt;\n\n00:01:00.000"
    )


def test_titles_are_not_formulas_in_a_spreadsheet(tmp_path: Path) -> None:
    for name in ("csv", "xlsx"):
        chapter_files.write_chapters([chaptered("=1+1", "-2")], tmp_path / f"a.{name}", name)
    rows = list(csv.reader((tmp_path / "a.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [row[-1] for row in rows] == ["topic", "'=1+1", "'-2"]
    assert openpyxl.load_workbook(tmp_path / "a.xlsx")["lesson_topics"]["D2"].data_type == "s"


def test_a_workbook_of_chapters_is_understood_as_it_was_meant(tmp_path: Path) -> None:
    talks = [chaptered("Intro", "=End"), chaptered("Start", number="2A")]
    chapter_files.write_chapters(talks, tmp_path / "a.xlsx", "xlsx")
    assert ingest(tmp_path / "a.xlsx").topics["title"].tolist() == ["Intro", "=End", "Start"]
    assert [divide_transcript(talk, SETTINGS).chapters for talk in read_transcripts(tmp_path / "a.xlsx")] == [
        [Chapter(0.0, 60.0, "Intro", "word 0", opens=True), Chapter(60.0, 61.0, "=End", "word 1")],
        [Chapter(0.0, 1.0, "Start", "word 0")],
    ]


LETTER = st.characters(codec="utf-8", categories=("L",))
SIGNS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=8)
TITLE = st.builds(
    lambda letter, rest: normalize("NFC", letter + " ".join(rest)), LETTER, st.lists(SIGNS, min_size=1, max_size=4)
)
WHOLE = st.integers(10, 20_000)
THOUSANDTHS = st.integers(10_000, 20_000_000).map(lambda milli: milli / 1000)
FRAME = 1 / 75  # seconds: the shortest time that a cue sheet tells apart
LATER = st.lists(WHOLE, unique=True, max_size=8).map(sorted)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_chapters_are_read_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    starts = [0.0, *data.draw(st.lists(WHOLE | THOUSANDTHS, unique_by=int, max_size=8).map(sorted))]
    titles = [data.draw(TITLE) for _ in starts]
    chapters = [Chapter(float(s), s + 10.0, title, "word") for s, title in zip(starts, titles, strict=True)]
    talk = ChapteredTranscript(Transcript("C", "1", [Line(0.0, "word")], starts[-1] + 10.0), chapters)
    folder = tmp_path_factory.mktemp("chapters")
    suffixes = {name: suffix for suffix, name in chapter_files.SUFFIXES.items()} | {"podcast": ".json"}
    for name, note in [*product(chapter_files.NAMES, [False]), *product(NOTES, [True])]:
        path = folder / f"{name}{suffixes.get(name, '.txt')}"
        chapter_files.write_chapters([talk], path, name, note=note)
        assert (NOTE in path.read_text(encoding="utf-8", errors="ignore")) == note
        (topics,) = read_topics(path).values()
        seconds, shown = starts, titles
        if name == "youtube":
            seconds, shown = [*map(int, starts)], [title.translate(str.maketrans("<>", "‹›")) for title in titles]
        if name == "cue":
            shown = [title.replace('"', "''") for title in titles]
        shortest = FRAME if name == "cue" else 1e-6
        assert [topic.seconds for topic in topics] == pytest.approx(seconds, abs=shortest), name
        assert [topic.title for topic in topics] == shown, name


@pytest.mark.parametrize(("suffix", "name"), chapter_files.SUFFIXES.items())
def test_chapters_in_one_second_stay_apart(suffix: str, name: str, tmp_path: Path) -> None:
    starts = [0.0, 65.2, 65.9, 66.0]
    talk = Transcript("C", "1", [Line(0.0, "word")], 80.0, [Topic(start, f"At {start}") for start in starts])
    chapter_files.write_chapters([divide_transcript(talk, SETTINGS)], tmp_path / f"a{suffix}", name)
    (again,) = replace_topics([talk], tmp_path / f"a{suffix}")
    expected = [0.0, 65.0, 66.0, 67.0] if name == "youtube" else starts
    shortest = FRAME if name == "cue" else 0.0
    assert [topic.seconds for topic in again.topics] == pytest.approx(expected, abs=shortest)
    assert [topic.title for topic in again.topics] == [f"At {start}" for start in starts]


@settings(max_examples=25, deadline=None)
@given(LATER, LATER)
def test_every_word_is_in_one_chapter(spoken: list[int], starts: list[int]) -> None:
    lines = [Line(float(second), f"word{second}") for second in [5, *spoken]]
    topics = [Topic(float(second), "") for second in starts or [0]]
    chapters = divide_transcript(Transcript("C", "1", lines, lines[-1].seconds + 1, topics), SETTINGS).chapters
    assert " ".join(chapter.text for chapter in chapters if chapter.text).split() == [line.text for line in lines]
    assert all(a.end_seconds == b.start_seconds for a, b in pairwise(chapters))
    assert all(chapter.start_seconds < chapter.end_seconds for chapter in chapters)


def test_topics_are_matched_to_their_lessons(tmp_path: Path) -> None:
    talks = [Transcript("C", number, [Line(0.0, "hi")], 1.0) for number in ("1", "2A")]
    table = tmp_path / "topics.csv"
    table.write_text("course_title;lesson_num;timestamp;topic\nC;02a;0:00;Late\n")
    assert [talk.topics for talk in replace_topics(talks, table)] == [[], [Topic(0.0, "Late")]]
    table.write_text("course_title;lesson_num;timestamp;topic\nC;3;0:00;Late\n")
    with pytest.raises(Rejected, match="lesson 3 of C"):
        replace_topics(talks, table)
    table.write_text("timestamp;topic\n0:00;Late\n")
    with pytest.raises(Rejected, match="does not say which"):
        replace_topics(talks, table)
    assert replace_topics(talks[:1], table)[0].topics == [Topic(0.0, "Late")]


def test_pasted_topics_are_read(tmp_path: Path) -> None:
    lines = tmp_path / "description.txt"
    lines.write_text(
        "My talk, in three parts:\n\n0:00 - Intro\n(12:05)\nThe middle\n• 1:02:03 End\n\nThanks for watching!"
    )
    assert read_topics(lines) == {("", ""): [Topic(0.0, "Intro"), Topic(725.0, "The middle"), Topic(3723.0, "End")]}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("t.txt", "nothing here", "0:00 Title"),
        ("t.txt", "0:00 Intro\n5:00 End\n5:00 Again", "0:05:00"),
        ("t.csv", "timestamp,topic\n0:00,Intro\nsoon,End\n", "t.csv, row 3"),
        ("t.csv", "timestamp,topic\n0:00,Intro\n0:00,End\n", "t.csv, row 3"),
        ("t.csv", "timestamp,name\n0:00,Intro\n", "topic"),
        ("t.json", '[{"chapters": [{"start_seconds": -1}]}]', "start_seconds"),
        ("t.json", "{", "line 1"),
        ("t.json", '[{"chapters": [{"start_seconds": 0}]}, {"chapters": [{"start_seconds": 9}]}]', "more than once"),
    ],
)
def test_broken_topics_are_rejected_with_their_place(name: str, content: str, place: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Rejected) as refused:
        read_topics(tmp_path / name)
    assert place in str(refused.value)


def test_a_missing_topics_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_topics(tmp_path / "t.csv")
