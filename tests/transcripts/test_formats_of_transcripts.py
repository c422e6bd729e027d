"""Read a transcript from every kind of file, through the entry point that commands use."""

from __future__ import annotations

import json
from pathlib import Path

import docx
import pytest

from pipeline.errors import Rejected
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.transcript import Transcript

WORDS = ["salt draws water out", "of the cabbage", "and the jar does the rest"]
TIMES = [0, 8, 16]


def read(path: Path, content: str | bytes) -> Transcript:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (transcript,) = read_transcripts(path)
    return transcript


def cues(form: str, stamp: str, words: list[str] = WORDS, times: list[int] = TIMES) -> str:
    return "".join(
        form.format(n=n, start=stamp.format(s=start), end=stamp.format(s=start + 8), words=text)
        for n, (start, text) in enumerate(zip(times, words, strict=True), start=1)
    )


SRT = cues("{n}\n{start} --> {end}\n{words}\n\n", "00:00:{s:02},000")
FILES: dict[str, tuple[str, str | bytes]] = {
    "WebVTT": ("a.vtt", "WEBVTT\n\n" + cues("{start} --> {end}\n{words}\n\n", "00:{s:02}.000")),
    "SubRip": ("a.srt", SRT),
    "SubRip under another name": ("a.txt", SRT),
    "SubRip with spaces in times": ("a.srt", cues("{n}\n{start} -> {end}\n{words}\n\n", "00:00:{s:02}, 000")),
    "SubRip that starts before zero": ("a.srt", SRT.replace("00:00:00,000", "-00:00:00,500")),
    "SubRip in UTF-16": ("a.srt", SRT.encode("utf-16")),
    "Whisper TSV": ("a.tsv", "start\tend\ttext\n" + cues("{start}\t{end}\t{words}\n", "{s}000")),
    "CSV": ("a.csv", "Start,End,Text\n" + cues('"{start}","{end}",{words}\n', "00:00:{s:02},000")),
    "Whisper JSON": (
        "a.json",
        json.dumps({"segments": [{"start": t, "end": t + 8, "text": w} for t, w in zip(TIMES, WORDS, strict=True)]}),
    ),
    "JSON under another name": (
        "a.txt",
        json.dumps([{"start": t, "duration": 8, "text": w} for t, w in zip(TIMES, WORDS, strict=True)]),
    ),
    "TTML": ("a.ttml", "<tt><body>" + cues('<p begin="{start}" end="{end}">{words}</p>', "{s}s") + "</body></tt>"),
    "ASS": (
        "a.ass",
        "[Events]\n" + cues("Dialogue: 0,{start},{end},Default,,0,0,0,,{words}\n", "0:00:{s:02}.00"),
    ),
    "lyrics": ("a.lrc", cues("[{start}]{words}\n", "00:{s:02}.00")),
    "text with times": ("a.txt", cues("{start} {words}\n", "0:{s:02}")),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_gives_its_lines(kind: str, tmp_path: Path) -> None:
    name, content = FILES[kind]
    transcript = read(tmp_path / name, content)
    assert [(line.seconds, line.text) for line in transcript.lines] == list(zip(TIMES, WORDS, strict=True))


@pytest.mark.parametrize("form", ["Ana Lopez: {}", ">> Ana Lopez: {}"])
def test_speakers_are_not_part_of_the_words(form: str, tmp_path: Path) -> None:
    content = "WEBVTT\n\n" + cues("{start} --> {end}\n{words}\n\n", "00:{s:02}.000", [form.format(w) for w in WORDS])
    assert [(line.speaker, line.text) for line in read(tmp_path / "a.vtt", content).lines] == [
        ("Ana Lopez", text) for text in WORDS
    ]


def test_word_document_of_a_meeting_is_read(tmp_path: Path) -> None:
    document = docx.Document()
    for start, text in zip(TIMES, WORDS, strict=True):
        document.add_paragraph(f"Ana Lopez   0:{start:02}\n{text}")
    document.save(str(tmp_path / "a.docx"))
    (transcript,) = read_transcripts(tmp_path / "a.docx")
    assert [(line.seconds, line.text, line.speaker) for line in transcript.lines] == [
        (start, text, "Ana Lopez") for start, text in zip(TIMES, WORDS, strict=True)
    ]


@pytest.mark.parametrize("start", [10 * 3600, 14 * 3600 + 5 * 60, 99 * 3600])
def test_transcript_starts_at_its_first_line_whatever_its_clock_shows(start: int, tmp_path: Path) -> None:
    content = "".join(
        f"{(start + t) // 3600}:{(start + t) // 60 % 60:02}:{(start + t) % 60:02} {words}\n"
        for t, words in zip(TIMES, WORDS, strict=True)
    )
    transcript = read(tmp_path / "a.txt", content)
    assert [line.seconds for line in transcript.lines] == TIMES
    assert "its clock starts at" in transcript.notes[0]


def test_recording_that_begins_with_silence_keeps_its_times(tmp_path: Path) -> None:
    transcript = read(tmp_path / "a.txt", "20:00 salt\n25:00 water\n")
    assert [line.seconds for line in transcript.lines] == [1200, 1500]
    assert transcript.notes == ()


def test_lines_out_of_order_are_sorted_and_reported(tmp_path: Path) -> None:
    times = [0, 16, 8]
    content = "WEBVTT\n\n" + cues("{start} --> {end}\n{words}\n\n", "00:{s:02}.000", times=times)
    transcript = read(tmp_path / "a.vtt", content)
    assert [line.seconds for line in transcript.lines] == [0, 8, 16]
    assert "1 of its times are before the time above them, the first at 0:00:08" in transcript.notes[0]


def test_live_captions_that_grow_give_each_line_once(tmp_path: Path) -> None:
    growing = [" ".join(text.split()[: n + 1]) for text in WORDS for n in range(len(text.split()))]
    content = "WEBVTT\n\n" + cues("{start} --> {end}\n{words}\n\n", "00:{s:02}.000", growing, [*range(len(growing))])
    transcript = read(tmp_path / "a.vtt", content)
    assert [line.text for line in transcript.lines] == WORDS


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("le café est très chaud – ça va", "cp1252"),
        ("now we leave the knives and turn to a sourdough starter – déjà vu, garçon", "cp1252"),
        ("今天我们讲面包的做法，首先看面粉。", "gb18030"),
    ],
)
def test_other_encodings_are_recognised_and_reported(text: str, encoding: str, tmp_path: Path) -> None:
    content = "".join(f"0:{n:02} {text}\n" for n in range(20))
    transcript = read(tmp_path / "a.txt", content.encode(encoding))
    assert transcript.lines[0].text == text
    assert f"read as {encoding}" in transcript.notes[0]


def test_arrow_in_spoken_words_is_kept(tmp_path: Path) -> None:
    words = ["the flow goes A --> B", "at 10:30 --> we stop", "done"]
    transcript = read(tmp_path / "a.srt", cues("{n}\n{start} --> {end}\n{words}\n\n", "00:00:{s:02},000", words)[:-2])
    assert transcript.lines[0].text == "the flow goes A --> B"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n00:00:00:12 --> 00:00:08:11\nsalt\n", "times with frames"),
        ("Scenarist_SCC V1.0\n\n00:00:00:00\t9420\n", "broadcast captions"),
        ("no times at all", "has no times"),
        ("**11:00 You:** hello\n**11:02 Me:** hi\n", "has times, such as 11:00, but not before the words"),
        (b"\xff\xfe\x00\x01\x02\xd8 binary \x00", "not"),
    ],
)
def test_file_that_cannot_be_read_is_named_for_what_it_is(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=message):
        read(tmp_path / "a.txt", content)
