"""Read JSON transcripts of every kind that Lectern knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Rejected
from pipeline.transcripts.json_transcripts import read_json

LINES = [(0.0, 4.0, "salt draws water out of cabbage", "Ana"), (4.0, 9.5, "and the jar does the rest", "Ben")]
WORDS = [
    {"text": word, "start": start, "end": start + 0.3, "speaker": who}
    for begin, _, line, who in LINES
    for start, word in ((begin + 0.5 * place, word) for place, word in enumerate(line.split()))
]


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


KINDS: dict[str, Any] = {
    "json3": {
        "events": [
            {
                "tStartMs": milliseconds(a),
                "dDurationMs": milliseconds(b - a),
                "segs": [{"utf8": text[:4]}, {"utf8": text[4:]}],
            }
            for a, b, text, _ in LINES
        ]
    },
    "youtube-transcript-api": [{"text": text, "start": a, "duration": b - a} for a, b, text, _ in LINES],
    "youtube-transcript-api, of one video in a list": [
        [{"text": text, "start": a, "duration": b - a} for a, b, text, _ in LINES]
    ],
    "youtube-transcript-api, with snippets": {
        "video_id": "x",
        "snippets": [{"text": text, "start": a, "duration": b - a} for a, b, text, _ in LINES],
    },
    "youtube-transcript, in seconds": [{"text": text, "offset": a, "duration": b - a} for a, b, text, _ in LINES],
    "youtube-transcript, in milliseconds": [
        {"text": text, "offset": milliseconds(a), "duration": milliseconds(b - a)} for a, b, text, _ in LINES
    ],
    "whisper": {
        "text": "...",
        "segments": [{"id": 0, "text": f" {text}", "start": a, "end": b} for a, b, text, _ in LINES],
    },
    "whisperx": {"segments": [{"text": t, "start": a, "end": b, "speaker": who} for a, b, t, who in LINES]},
    "faster-whisper": [{"text": text, "start": a, "end": b} for a, b, text, _ in LINES],
    "openai, words only": {
        "words": [{"word": word["text"], "start": word["start"], "end": word["end"]} for word in WORDS]
    },
    "whisper.cpp": {
        "transcription": [
            {"text": text, "offsets": {"from": milliseconds(a), "to": milliseconds(b)}} for a, b, text, _ in LINES
        ]
    },
    "transformers": {"text": "...", "chunks": [{"text": text, "timestamp": [a, b]} for a, b, text, _ in LINES]},
    "assemblyai": {
        "utterances": [
            {"text": text, "start": milliseconds(a), "end": milliseconds(b), "speaker": who}
            for a, b, text, who in LINES
        ]
    },
    "assemblyai, words only": {
        "words": [word | {"start": milliseconds(word["start"]), "end": milliseconds(word["end"])} for word in WORDS]
    },
    "deepgram": {
        "results": {
            "channels": [],
            "utterances": [{"transcript": text, "start": a, "end": b, "speaker": 0} for a, b, text, _ in LINES],
        }
    },
    "deepgram, words only": {
        "results": {
            "channels": [
                {"alternatives": [{"words": [{"word": w["text"], **w, "speaker": w["speaker"]} for w in WORDS]}]}
            ]
        }
    },
    "aws": {
        "results": {
            "items": [
                {
                    "start_time": str(word["start"]),
                    "end_time": str(word["end"]),
                    "alternatives": [{"content": word["text"]}],
                    "speaker_label": word["speaker"],
                }
                for word in WORDS
            ]
        }
    },
    "podcasting": {
        "version": "1.0.0",
        "segments": [{"speaker": who, "startTime": a, "endTime": b, "body": text} for a, b, text, who in LINES],
    },
    "edx": {
        "start": [milliseconds(a) for a, *_ in LINES],
        "end": [milliseconds(b) for _, b, *_ in LINES],
        "text": [text for _, _, text, _ in LINES],
    },
    "panopto": [{"Caption": text, "Time": a, "CaptionDuration": b - a} for a, b, text, _ in LINES],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_lines(kind: str) -> None:
    spoken = read_json(KINDS[kind], "talk.json")
    assert [(each.seconds, each.text.strip()) for each in spoken] == [(a, text) for a, _, text, _ in LINES]


@pytest.mark.parametrize("kind", ["whisperx", "assemblyai", "podcasting", "aws", "deepgram, words only"])
def test_speakers_are_kept_apart_from_the_words(kind: str) -> None:
    spoken = read_json(KINDS[kind], "talk.json")
    assert [each.speaker for each in spoken] == ["Ana", "Ben"]


def test_punctuation_without_a_time_belongs_to_the_word_before_it() -> None:
    item = {"start_time": "1", "end_time": "2", "alternatives": [{"content": "Stop"}]}
    content = {"results": {"items": [item, {"alternatives": [{"content": "."}]}]}}
    assert read_json(content, "talk.json")[0].text == "Stop."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lines": []}, "of a kind that Lectern does not read.*Whisper.*AWS Transcribe"),
        ([{"text": "a", "start": "soon", "duration": 1}], r"entry 1 .*: 'soon' is not a time"),
        ([{"text": "a", "start": True, "duration": 1}], "'True' is not a time"),
        ([{"text": "a", "start": -1, "duration": 1}], "'-1' is not a time"),
        ([{"text": "a", "start": 1e300, "end": 2}], "is not a time"),
        ([{"text": None, "start": 1, "end": 2}], "entry 1 .*: the text is 'None'"),
    ],
)
def test_content_that_cannot_be_read_is_named(content: Any, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        read_json(content, "talk.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "segments",
                    "words",
                    "events",
                    "segs",
                    "utf8",
                    "start",
                    "end",
                    "text",
                    "results",
                    "items",
                    "alternatives",
                    "channels",
                    "utterances",
                    "chunks",
                    "timestamp",
                    "transcription",
                    "offsets",
                    "content",
                    "word",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_read_or_refused(content: Any) -> None:
    try:
        spoken = read_json(content, "talk.json")
    except Rejected:
        return
    assert all(each.seconds >= 0 for each in spoken)
