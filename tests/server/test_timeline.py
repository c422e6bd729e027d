"""The timeline of a talk."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from pipeline.chapters.divide_transcript import divide_at
from pipeline.server.timeline import timeline_html
from pipeline.transcripts.transcript import Line, Topic, Transcript

EVIL = """<script>alert(1)</script> "><img src=x onerror=alert(1)> ${alert(1)} `{{value}}` &amp;"""
LINES = [Line(0.0, "hello"), Line(61.5, EVIL), Line(90.0, "so"), Line(300.0, "bye")]
TALK = Transcript(EVIL, "1", LINES, 310.0)


class _Tags(HTMLParser):
    """The tags and the texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _articles(page: str) -> list[str]:
    return ["".join(_Tags(article).texts) for article in re.findall("<article>.*?</article>", page)]


def test_each_chapter_has_its_words_and_the_line_before() -> None:
    page = timeline_html(divide_at(TALK, [Topic(0.0, "A"), Topic(90.0, "B"), Topic(400.0, "C")]))
    first, second, third = _articles(page)
    assert first.startswith("1. A0:00 to 1:30")
    assert ("hello" in first, "1:01" in first, "bye" in first) == (True, True, False)
    assert ("1:01 … <script>" in second, "1:30 so" in second, "5:00 bye" in second) == (True, True, True)
    assert "Nothing is said in this chapter." in third
    assert re.findall(r"flex-grow:(\d+)", page) == ["90", "310", "1"]
    assert re.findall(r'value="(\d)"[^>]* checked', page) == ["1"]


def test_words_and_titles_are_no_markup() -> None:
    page = _Tags(timeline_html(divide_at(TALK, [Topic(0.0, EVIL)])))
    assert page.tags == {"fieldset", "legend", "label", "input", "span", "article", "h3", "p", "b", "div"}
    assert f"1. {EVIL}" in page.texts
    assert f" {EVIL}" in page.texts
    assert f"Timeline of lesson 1 of {EVIL}: choose a chapter" in page.texts
