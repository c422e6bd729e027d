"""The examples of docs/formats.md are read, and written, as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.transcripts import chapter_files
from pipeline.transcripts.chapter import Chapter, ChapteredTranscript
from pipeline.transcripts.course_folder import TRANSCRIPTS
from pipeline.transcripts.known_topics import read_topics
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.transcript import Line, Topic, Transcript
from tests.conftest import ROOT

PAGE = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r'^``` title="([^"\n]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
TALKS = [(name, text) for name, text in EXAMPLES if name.startswith("talk.")]
TALKS += [("talk.json", text) for text in re.findall(r"^\| .+ \| `([\[{].+)` \|$", PAGE, re.MULTILINE)]
LISTS = [(name, text) for name, text in EXAMPLES if not name.startswith("talk.")]
TOPICS = [Topic(0, "Flour and water"), Topic(80, "The first rise")]


@pytest.mark.parametrize(("name", "text"), TALKS)
def test_each_example_of_a_transcript_is_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    (talk,) = read_transcripts(tmp_path / name)
    assert talk.lines[0].seconds == 0
    assert talk.lines[0].text.startswith("Good")
    assert "Ana" not in " ".join(line.text for line in talk.lines)


@pytest.mark.parametrize(("name", "text"), LISTS)
def test_each_example_of_chapters_is_read(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"list.{name if name in ('csv', 'json', 'md') else 'txt'}"
    path.write_text(text)
    assert [*read_topics(path).values()] == [TOPICS]


def test_each_text_format_is_shown_as_it_is_written() -> None:
    talk = Transcript("Baking", "3", [Line(0.0, "so")], 160.0)
    lesson = ChapteredTranscript(
        talk, [Chapter(0.0, 80.0, TOPICS[0].title, "so"), Chapter(80.0, 160.0, TOPICS[1].title, "")]
    )
    shown = dict(LISTS)
    for name in chapter_files.TEXTS:
        written = chapter_files.as_text([lesson], name)
        if written.startswith(("{", "[")):
            assert json.loads(shown[name]) == json.loads(written)
        else:
            assert shown[name] == written.replace("\r\n", "\n"), name


def test_each_format_has_an_example() -> None:
    others = {".ssa", ".sami", ".dfxp", ".xml", ".json3", ".sjson", ".docx", ".scc"}  # named in the text
    assert {*TRANSCRIPTS} - others == {Path(name).suffix for name, _ in TALKS}
