"""Read XML transcripts: TTML and YouTube's."""

from __future__ import annotations

import pytest

from pipeline.errors import Rejected
from pipeline.transcripts.xml_transcripts import is_xml, read_xml

TTML = """<?xml version="1.0" encoding="utf-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter" ttp:frameRate="25">
<body><div>{}</div></body></tt>"""
SRV1 = '<transcript><text start="0" dur="4">salt &amp;amp; water</text><text start="4.5">the jar</text></transcript>'
SRV2 = '<timedtext><text t="0" d="4000">salt &amp; water</text><text t="4500">the jar</text></timedtext>'
SRV3 = """<timedtext format="3"><body>
<p t="0" d="4000"><s>salt</s><s t="300"> &amp; water</s></p><p t="4500"><s>the jar</s></p></body></timedtext>"""


@pytest.mark.parametrize("text", [SRV1, SRV2, SRV3])
def test_youtube_captions_give_their_lines(text: str) -> None:
    assert is_xml(text)
    spoken = read_xml(text, "talk.xml")
    assert [(each.seconds, each.end_seconds, each.text) for each in spoken] == [
        (0, 4, "salt & water"),
        (4.5, None, "the jar"),
    ]


@pytest.mark.parametrize(
    ("attributes", "start", "end"),
    [
        ('begin="00:00:01.500" end="00:00:03"', 1.5, 3),
        ('begin="1.5s" dur="1500ms"', 1.5, 3),
        ('begin="00:00:01:05" end="75f"', 1.2, 3),
        ('begin="0.5m"', 30, None),
    ],
)
def test_ttml_times_are_read_in_every_notation(attributes: str, start: float, end: float | None) -> None:
    (spoken,) = read_xml(TTML.format(f"<p {attributes}>salt<br/>and <span>water</span></p>"), "talk.ttml")
    assert (spoken.seconds, spoken.end_seconds) == (pytest.approx(start), end and pytest.approx(end))
    assert spoken.text == "salt and water"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TTML.format('<p begin="soon">a</p>'), "'soon' is not a time"),
        (TTML.format('<p begin="1s">a'), "line 3: not XML"),
        ("<?xml version='1.0'?><svg/>", "of a kind that Lectern does not read"),
        ("<transcript><text start='-1'>a</text></transcript>", "'-1' is not a time"),
        ('<!DOCTYPE a [<!ENTITY b "boom">]><transcript>&b;</transcript>', "no caption program writes"),
    ],
)
def test_content_that_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        read_xml(text, "talk.xml")
