"""Find times and names in plain text."""

from __future__ import annotations

import pytest

from pipeline.transcripts.text_layouts import split_text

SAID = [
    ("0:05", "Ana Lopez", "salt draws water out"),
    ("1:04", "Ben Okri", "one thing: never rush"),
    ("1:20", "Ana Lopez", "done"),
]


def layout(form: str) -> str:
    return "\n".join(form.format(time=time, name=name, words=words) for time, name, words in SAID)


@pytest.mark.parametrize(
    "form",
    [
        "{name}  {time}\n{words}\n",
        "{name} ({time}):\n{words}\n",
        "[{name}] {time}\n{words}\n",
        "{name}, {time}\n{words}",
        "{name} - {time}  \n\n{words}\n",
    ],
)
def test_header_names_the_speaker_of_the_text_below(form: str) -> None:
    heading, found = split_text(layout(form).split("\n"))
    assert heading == []
    assert [(each.time, each.speaker, " ".join(each.lines)) for each in found] == SAID


def test_panel_has_the_name_and_the_time_in_words_above_the_time() -> None:
    text = "Ana Lopez\n5 seconds\n0:05\nsalt\ndraws\nBen Okri\n1 minute 4 seconds\n1:04\n5 seconds\nare enough\n"
    heading, found = split_text(text.split("\n"))
    assert heading == []
    assert [(each.time, each.speaker, each.lines) for each in found] == [
        ("0:05", "Ana Lopez", ["salt", "draws"]),
        ("1:04", "Ben Okri", ["5 seconds", "are enough"]),
    ]


@pytest.mark.parametrize(
    "form",
    [
        "{time} {words}",
        "[{time}]{words}",
        "({time}) {words}",
        "{time} - 9:59 {words}",
        "- {time}: {words}",
        "{time}\n{words}",
    ],
)
def test_time_first_gives_the_words_beside_or_below(form: str) -> None:
    _, found = split_text(layout(form).split("\n"))
    assert [(each.time, " ".join(each.lines)) for each in found] == [(time, words) for time, _, words in SAID]


def test_youtube_panel_repeats_each_time_in_words() -> None:
    _, found = split_text(["0:05", "5 seconds", "salt", "1:04", "1 minute, 4 seconds", "water"])
    assert [(each.time, each.lines) for each in found] == [("0:05", ["salt"]), ("1:04", ["water"])]


def test_sentence_that_ends_with_a_time_is_no_header() -> None:
    _, found = split_text(["0:05 hello", "the class begins at 10:30", "and lunch is at 12:00"])
    assert [each.lines for each in found] == [["hello", "the class begins at 10:30", "and lunch is at 12:00"]]


def test_lines_before_the_first_time_are_the_heading() -> None:
    heading, found = split_text(["Knife class", "Transcript", "", "00:00:00", "hello"])
    assert (heading, [each.lines for each in found]) == (["Knife class", "Transcript"], [["hello"]])
