from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.transcript import Line, Topic, Transcript
from tests.titles.small import write_book


def read(folder: Path, name: str, content: str | bytes) -> Transcript:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (talk,) = read_transcripts(path)
    return talk


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(Rejected) as refused:
        read(folder, name, content)
    return str(refused.value)


WEBVTT = """WEBVTT - a lecture
Kind: captions

STYLE
::cue { color: red }

NOTE
nobody says this --

intro
00:01.000 --> 00:04.000 align:start
<v Ann>Hello &amp; <i>welcome</i>
to it

00:00:05.500 --> 00:00:09.000
if a < b
2022
"""
SUBRIP = """
1
00:00:01,000 --> 00:00:04,000
<font color="red">Hello & welcome</font>

to it
2
00:00:05,500 --> 00:00:09,000
{\\an8}if a < b

2022
"""
SBV = "0:00:01.000,0:00:04.000\r\nHello & welcome[br]to it\r\n\r\n0:00:05.500,0:00:09.000\r\nif a < b\r\n2022\r\n"


@pytest.mark.parametrize(("name", "content"), [("a.vtt", WEBVTT), ("a.srt", SUBRIP), ("a.sbv", SBV), ("a.txt", SUBRIP)])
def test_captions_are_read_without_their_markup(name: str, content: str, tmp_path: Path) -> None:
    talk = read(tmp_path, name, content)
    voice = "Ann" if content is WEBVTT else ""
    assert talk.lines == [Line(1.0, "Hello & welcome to it", voice), Line(5.5, "if a < b 2022")]
    assert (talk.course_title, talk.lesson_num, talk.end_seconds) == ("a", "1", 9.0)


def test_settings_of_captions_are_ignored(tmp_path: Path) -> None:
    content = "0:01 --> 0:02 X1:40 X2:600 Y1:02 Y2:50\nhi\n\n0:02 --> 0:03  line:-1 position:10%,line-left size:5%\nho"
    assert read(tmp_path, "a.srt", content).lines == [Line(1.0, "hi"), Line(2.0, "ho")]


def test_each_line_of_rolling_captions_is_read_once(tmp_path: Path) -> None:
    rolling = """WEBVTT

00:00:00.000 --> 00:00:02.000 align:start position:0%
 
yes<00:00:00.480><c> indeed</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
yes indeed
 

00:00:02.010 --> 00:00:04.000 align:start position:0%
yes indeed
yes<00:00:02.480><c> indeed</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
yes indeed
 

00:00:04.010 --> 00:00:06.000 align:start position:0%
yes indeed
we<00:00:04.480><c> begin</c>
"""  # noqa: W293
    talk = read(tmp_path, "auto.vtt", rolling)
    assert talk.lines == [Line(0.0, "yes indeed"), Line(2.01, "yes indeed"), Line(4.01, "we begin")]


def test_repeated_words_stay_in_captions_that_do_not_roll(tmp_path: Path) -> None:
    cues = [(0, "again"), (2, "again"), (4, "and"), (6, "and")]
    talk = read(tmp_path, "a.vtt", "WEBVTT\n\n" + "\n".join(f"0:0{s}.000 --> 0:0{s + 1}.000\n{t}\n" for s, t in cues))
    assert [line.text for line in talk.lines] == ["again", "again", "and", "and"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_is_read_in_every_unicode_encoding(encoding: str, tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "0:00 ça va – déjà".encode(encoding)).lines == [Line(0.0, "ça va – déjà")]


def test_both_forms_of_youtubes_json_are_read(tmp_path: Path) -> None:
    timed_text = {
        "wireMagic": "pb3",
        "events": [
            {"tStartMs": 0, "dDurationMs": 90000, "id": 1, "wpWinPosId": 1},
            {"tStartMs": 1000, "dDurationMs": 3000, "segs": [{"utf8": "so"}, {"utf8": " now", "tOffsetMs": 200}]},
            {"tStartMs": 2500, "aAppend": 1, "segs": [{"utf8": "\n"}]},
            {"tStartMs": 4000, "dDurationMs": 2000, "segs": [{"utf8": "we&#39;re"}]},
        ],
    }
    snippets = [{"text": "so\nnow", "start": 1.0, "duration": 3.0}, {"text": "we're", "start": 4.0, "duration": 2.0}]
    for content in (timed_text, snippets):
        talk = read(tmp_path, "a.json", json.dumps(content))
        assert (talk.lines, talk.end_seconds) == ([Line(1.0, "so now"), Line(4.0, "we're")], 6.0)


def test_plain_text_has_times_before_or_above_its_words(tmp_path: Path) -> None:
    beside = "0:00 hello\n[00:01:05] so now\nwe turn\n(1:02:03) - the end\n"
    above = "0:00\nhello\n1:05\n1 minute, 5 seconds\nso now\nwe turn\n1:02:03\n1 hour, 2 minutes, 3 seconds\nthe end"
    for content in (beside, above):
        lines = read(tmp_path, "a.txt", content).lines
        assert lines == [Line(0.0, "hello"), Line(65.0, "so now we turn"), Line(3723.0, "the end")]


def test_text_before_the_first_time_starts_at_zero(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "My talk\n\nby me\n0:10 so now").lines == [
        Line(0.0, "My talk by me"),
        Line(10.0, "so now"),
    ]


def test_words_like_a_time_are_kept(tmp_path: Path) -> None:
    lines = read(tmp_path, "a.txt", "0:00\n5 seconds\n0:10 -5 degrees").lines
    assert lines == [Line(0.0, "5 seconds"), Line(10.0, "-5 degrees")]


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.vtt", "WEBVTT\n\n00:00:0x.000 --> 00:00:04.000\nhi\n", "a.vtt, line 3"),
        ("a.srt", "1\n00:00:01,000 --> 00:99:04,000\nhi\n", "a.srt, line 2"),
        ("a.srt", "so hi\n\n1\n00:00:01,000 --> 00:00:04,000\nhi\n", "a.srt, line 1"),
        ("a.txt", "0:00 hi\n0:99 ho\n", "a.txt, line 2"),
        ("a.txt", "0:00 hi\n\n0:30 ho\n0:20 back\n", "a.txt, line 4"),
        ("a.txt", "no times at all", "a.txt"),
        ("a.txt", b"PK\x03\x04\0\0\0", "a.txt"),
        ("a.txt", b"", "a.txt"),
        ("a.vtt", "WEBVTT\n", "a.vtt"),
        ("a.json", '[\n{"text": "hi", "start": 0},\n', "a.json, line 3"),
        ("a.json", '[{"text": "hi", "start": 0}, {"text": "hi", "start": "soon"}]', "a.json, entry 2"),
        ("a.json", '[{"text": "hi", "start": NaN}]', "a.json, entry 1"),
        ("a.json", '{"title": "hi"}', "a.json"),
        ("a.json", "[" * 100_000, "a.json"),
        ("a.json", '[{"text": "hi", "start": ' + "9" * 5000 + "}]", "a.json"),
        ("a.txt", "0:" + "9" * 5000, "a.txt, line 1"),
        ("a.srt", "1\n0:00 --> 0:05\nhi\n\n2\n0:05 --> 0:10 line: ho\n", "a.srt, line 6"),
        ("a.sbv", "0:00:01.000,0:00:04.000\nhi\n\n0:00:04.000,0:00:09.000 ho\n", "a.sbv, line 4"),
        ("a.vtt", "WEBVTT\n\n0:00 --> 0:05 hi\n", "a.vtt, line 3"),
    ],
)
def test_a_broken_file_is_rejected_with_its_place(name: str, content: str | bytes, place: str, tmp_path: Path) -> None:
    assert place in refusal(tmp_path, name, content)


def test_a_file_that_is_too_large_is_rejected(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(Rejected, match="MB"):
        read_transcripts(tmp_path / "a.txt")


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "a.vtt"):
        with pytest.raises(UsageError):
            read_transcripts(path)


def test_a_workbook_has_one_transcript_for_each_lesson(tmp_path: Path) -> None:
    book = write_book(
        tmp_path / "week.xlsx",
        [("C", "4", "0:00", "Alone"), ("C", "2A", "0:00", "Kept"), ("C", "2A", "0:30", None)],
        [
            ("C", "2A", "0:31", "later"),
            ("C", "2A", "0:01", " so  now "),
            ("C", "3", "0:00", "hi"),
            ("C", "3", "9", None),
            ("C", "4", "9", None),
        ],
    )
    first, second, third = read_transcripts(book)
    assert first.lines == [Line(1.0, "so now"), Line(31.0, "later")]
    assert [tuple(topic) for topic in first.topics] == [(0.0, "Kept"), (30.0, "")]
    assert (second.lesson_num, second.lines, second.topics) == ("3", [Line(0.0, "hi")], [])
    assert (third.lesson_num, third.lines, third.topics) == ("4", [], [Topic(0.0, "Alone")])


def test_a_workbook_may_lack_only_topics(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables/lesson_transcripts.csv"
    table.write_text("course_title,lesson_num,timestamp,transcript\nC,1,0:01,hi\n")
    assert [talk.name for talk in read_transcripts(table.parent)] == ["lesson 1 of C"]
    table.write_text("course_title,lesson_num,timestamp,transcript\nC,1,soon,hi\n")
    with pytest.raises(Rejected, match="row 2"):
        read_transcripts(table.parent)


WORDS = st.text(st.characters(codec="utf-8", categories=("L",)), min_size=1, max_size=6)
SAID = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=12)


def stamp(second: int) -> str:
    return f"00:{second // 60:02}:{second % 60:02}.000"


@settings(max_examples=50, deadline=None)
@given(SAID, st.sampled_from(["vtt", "srt", "sbv", "txt", "--> txt", ", txt"]))
def test_no_word_of_a_transcript_is_lost(tmp_path_factory: pytest.TempPathFactory, said: list[str], kind: str) -> None:
    # Different lines: captions in which most lines repeat the line before would count as rolling.
    said = [f"{text} {number}" for number, text in enumerate(said)]
    times = [f"{stamp(n)}{',' if kind in ('sbv', ', txt') else ' --> '}{stamp(n + 1)}" for n in range(len(said))]
    if kind == "txt":
        content = "".join(f"{stamp(n)} {text}\n" for n, text in enumerate(said))
    elif kind.endswith("txt"):
        content = "".join(f"{time} {text}\n" for time, text in zip(times, said, strict=True))
    else:
        head = "WEBVTT\n\n" if kind == "vtt" else ""
        content = head + "".join(f"{time}\n{text}\n\n" for time, text in zip(times, said, strict=True))
    talk = read(tmp_path_factory.mktemp("talk"), f"a.{kind[-3:]}", content)
    assert [line.text for line in talk.lines] == [" ".join(text.split()) for text in said]


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00"])
def test_half_a_character_is_rejected(half: str, tmp_path: Path) -> None:
    content = f'[{{"text": "so {half} now", "start": 1.0, "duration": 3.0}}]'
    with pytest.raises(Rejected, match="half a character"):
        read(tmp_path, "a.json", content)


def test_control_characters_become_spaces(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "0:00 so\x1b[2Jnow\x07\n").lines == [Line(0.0, "so [2Jnow")]
    snippets = json.dumps([{"text": "so\x1b[2Jnow", "start": 0.0, "duration": 3.0}])
    assert read(tmp_path, "a.json", snippets).lines == [Line(0.0, "so [2Jnow")]


def test_what_was_read_in_another_way_is_noted(tmp_path: Path) -> None:
    head = "course_title,lesson_num,timestamp"
    (tmp_path / "lesson_topics.csv").write_text(f"{head},topic\nClouds,1,0:00,")
    (tmp_path / "lesson_transcripts.csv").write_bytes(f"{head},transcript\nClouds,1,0:00,caf\u00e9".encode("cp1252"))
    [transcript] = read_transcripts(tmp_path)
    assert ["cp1252" in note for note in transcript.notes] == [True]
