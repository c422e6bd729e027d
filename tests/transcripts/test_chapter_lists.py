"""Read and write chapter lists of players, editors and podcasts."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Rejected
from pipeline.transcripts.chapter import Chapter, ChapteredTranscript
from pipeline.transcripts.chapter_files import as_webvtt
from pipeline.transcripts.chapter_lists import FORMATS, ChapterFormat, ChapterSpan, read_chapter_list
from pipeline.transcripts.known_topics import read_topics
from pipeline.transcripts.transcript import Topic, Transcript

TOPICS = [Topic(0, "Salt; water = brine"), Topic(80, "The jar"), Topic(160.5, "")]
CHAPTERS = [ChapterSpan(0, 80, TOPICS[0].title), ChapterSpan(80, 160.5, "The jar"), ChapterSpan(160.5, 240, "")]
WRITTEN = [each for each in FORMATS if each.write]
TITLES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), max_size=30).map(
    lambda text: " ".join(text.split())
)


def by_name(each: ChapterFormat) -> str:
    return each.name


READ_ONLY = {
    "info.json": json.dumps(
        {
            "id": "x",
            "chapters": [{"start_time": each.start, "end_time": each.end, "title": each.title} for each in CHAPTERS],
        }
    ),
    "ogm": "".join(
        f"CHAPTER{number:02}={clock}\nCHAPTER{number:02}NAME={topic.title}\n"
        for number, (clock, topic) in enumerate(
            zip(["00:00:00.000", "00:01:20.000", "00:02:40.500"], TOPICS, strict=True), start=1
        )
    ),
    "matroska": "<?xml version='1.0'?><Chapters><EditionEntry>"
    + "".join(
        f"<ChapterAtom><ChapterTimeStart>{clock}</ChapterTimeStart>"
        f"<ChapterDisplay><ChapterString>{topic.title}</ChapterString></ChapterDisplay></ChapterAtom>"
        for clock, topic in zip(["00:00:00.000000000", "00:01:20", "00:02:40.5"], TOPICS, strict=True)
    )
    + "</EditionEntry></Chapters>",
}


@pytest.mark.parametrize("kind", READ_ONLY)
def test_formats_that_are_only_read_give_their_topics(kind: str) -> None:
    assert read_chapter_list(READ_ONLY[kind], "chapters") == TOPICS


@pytest.mark.parametrize("kind", WRITTEN, ids=by_name)
@given(st.lists(st.tuples(st.integers(0, 2_000_000), TITLES), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_what_is_written_is_read_back(kind: ChapterFormat, drawn: list[tuple[int, str]]) -> None:
    step = {"cue": 1 / 75}.get(kind.name, 1 / 1000)  # the shortest time that the format tells apart
    drawn.sort()
    chapters = [ChapterSpan(start * 10 * step, start * 10 * step + 1, title) for start, title in drawn]
    assert kind.write is not None
    text = kind.write(chapters)
    found = read_chapter_list(text, "chapters")
    assert found is not None
    assert [topic.seconds for topic in found] == [pytest.approx(each.start, abs=step / 2) for each in chapters]
    titles = [each.title.replace('"', "''") if kind.name == "cue" else each.title for each in chapters]
    assert [topic.title for topic in found] == titles


def test_audacity_labels_with_spectral_lines_and_commas_are_read() -> None:
    assert read_chapter_list("0,5\t0,5\tSalt\n\\\t100\t200\n80\t90\n", "labels.txt") == [
        Topic(0.5, "Salt"),
        Topic(80, ""),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/0\nSTART=1\n", "damaged chapter list"),
        (";FFMETADATA1\n[CHAPTER]\ntitle=a\n", r"damaged chapter list \(ffmetadata\): 'START'"),
        ("<chapters><chapter start='soon'/></chapters>", "'soon' is not a time"),
        ("<chapters><chapter>", "damaged chapter list"),
        ('{"chapters": [{"startTime": "soon"}]}', "damaged chapter list"),
        ('{"chapters": [{"startTime": -1, "title": "a"}]}', "chapter 'a' starts at -1 s"),
    ],
)
def test_damaged_list_is_named(text: str, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        read_chapter_list(text, "chapters")


@pytest.mark.parametrize(
    "text", ["", "0:00 Salt\n1:20 The jar", "WEBVTT\n\n00:00.000 --> 00:01.000", "{}", "[1]", "<a/>"]
)
def test_other_text_is_no_chapter_list(text: str) -> None:
    assert read_chapter_list(text, "file") is None


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_ffmpeg_puts_the_chapters_into_an_audio_file(tmp_path: Path) -> None:
    write = next(each.write for each in FORMATS if each.name == "ffmetadata")
    assert write is not None
    chapters = [ChapterSpan(0, 1, "Salt; water = brine"), ChapterSpan(1, 2, "The #1 jar")]
    (tmp_path / "chapters.txt").write_text(write(chapters), encoding="utf-8")
    silence = ["-nostdin", "-f", "lavfi", "-t", "2", "-i", "anullsrc=r=8000:cl=mono"]
    metadata = ["-i", str(tmp_path / "chapters.txt"), "-map_metadata", "1", "-map_chapters", "1"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *silence, *metadata, str(tmp_path / "talk.m4a")], check=True)
    probe = ["ffprobe", "-loglevel", "error", "-show_chapters", "-of", "json", str(tmp_path / "talk.m4a")]
    found = json.loads(subprocess.run(probe, capture_output=True, text=True, check=True).stdout)["chapters"]
    assert [(float(each["start_time"]), each["tags"]["title"]) for each in found] == [
        (each.start, each.title) for each in chapters
    ]


def test_a_dash_within_a_title_is_not_a_separator(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("0:00 - Start\n0:10 A- 0 - 1\n")
    assert [topic.title for topic in read_topics(tmp_path / "list.txt")["", ""]] == ["Start", "A- 0 - 1"]


ODD_TITLES = st.sampled_from(
    ["3:1,4:2 odds", "[br]", "{\\an8} up", "0:01,0:02", "NOTE to self", "WEBVTT", "a --> b", "&#91;", "<i>x</i>", "7"]
)


@given(st.lists(TITLES | ODD_TITLES, min_size=1, max_size=4))
def test_titles_survive_our_own_webvtt(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> None:
    chapters = [Chapter(n * 10.0, n * 10.0 + 10, title, "") for n, title in enumerate(titles)]
    path = tmp_path_factory.getbasetemp() / "chapters.vtt"
    path.write_text(as_webvtt([ChapteredTranscript(Transcript("C", "1", [], 99), chapters)]), encoding="utf-8")
    [topics] = read_topics(path).values()
    assert [topic.title for topic in topics] == titles
