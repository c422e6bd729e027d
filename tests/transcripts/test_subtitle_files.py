"""Read the subtitles of video players."""

from __future__ import annotations

import pytest

from pipeline.errors import Rejected
from pipeline.transcripts.subtitle_files import read_subtitles, subtitle_format

ASS = r"""[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,made by hand
Dialogue: 0,0:00:00.00,0:00:04.00,Default,Ana,0,0,0,,{\i1}salt draws{\i0} water\Nout
Dialogue: 0,0:00:04.50,0:00:09.00,Default,,0,0,0,,the jar, of course
"""
MPL2 = "[0][40]salt draws water|out\n[45][90]the jar, of course\n"
SAMI = """<SAMI><BODY>
<SYNC Start=0><P Class=ENCC>salt draws water<br>out
<SYNC Start=4500><P Class=ENCC>the jar, of course
<SYNC Start=9000><P Class=ENCC>&nbsp;
</BODY></SAMI>"""
MICRODVD = "{0}{100}salt draws water|out\n{112}{225}the jar, of course\n"


@pytest.mark.parametrize(("kind", "text"), [("ass", ASS), ("mpl2", MPL2), ("sami", SAMI)])
def test_subtitles_give_their_lines(kind: str, text: str) -> None:
    assert subtitle_format(text) == kind
    spoken = [each for each in read_subtitles(text, "talk", kind) if each.text]
    assert [(each.seconds, each.text) for each in spoken] == [(0, "salt draws water out"), (4.5, "the jar, of course")]


def test_actors_of_ass_are_speakers_and_comments_are_not_spoken() -> None:
    assert [each.speaker for each in read_subtitles(ASS, "talk.ass", "ass")] == ["Ana", ""]


def test_frames_are_read_at_the_rate_that_the_file_names() -> None:
    spoken = read_subtitles("{1}{1}25.000\n" + MICRODVD, "talk.sub", "microdvd")
    assert [each.seconds for each in spoken] == [0, 4.48]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MICRODVD, r"counts frames \(MicroDVD\) and does not say how many there are per second"),
        ("Scenarist_SCC V1.0\n\n00:00:00:00\t9420", "broadcast captions"),
    ],
)
def test_file_without_times_is_named_for_what_it_is(text: str, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        read_subtitles(text, "talk", subtitle_format(text) or "")


@pytest.mark.parametrize("text", ["WEBVTT\n\n00:01.000 --> 00:02.000\na", "0:00 hello", "", "{}"])
def test_other_text_is_no_subtitle_file(text: str) -> None:
    assert subtitle_format(text) is None
