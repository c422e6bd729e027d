"""The chapters of a folder of transcripts, in one workbook."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.workbook import ingest
from tests.chapters.test_segmentation import SUBJECTS
from tests.command import lectern_here
from tests.titles.small import register


@pytest.fixture
def course(project: Path, examples: pd.DataFrame) -> Path:
    """A project with a registered version and a folder of four talks, of which one has topics and one is broken."""
    register(project / "small", examples)
    (folder := project / "Evening").mkdir()
    for subject, said in SUBJECTS.items():
        lines = [f"0:{n:02} {said} {n}" if n < 60 else f"1:{n - 60:02} {said} {n}" for n in range(0, 120, 4)]
        (folder / f"{subject}.txt").write_text("\n".join(lines))
    (folder / "bread.md").write_text("0:00 Flour\n1:00 The oven")
    (folder / "broken.vtt").write_text("WEBVTT")
    return folder


def test_a_folder_becomes_a_workbook_and_finished_lessons_are_not_titled_again(course: Path, project: Path) -> None:
    command = ("chapters", course, "--out", "course.xlsx")
    done = lectern_here(*command)
    assert (done.returncode, "course.xlsx: 8 chapters, 2 with a known title" in done.stdout) == (1, True), done.stderr
    assert done.stderr.splitlines()[-1].startswith("Left out broken.vtt: ")
    book = ingest(project / "course.xlsx")  # raises if `lectern check` would find errors
    topics = book.topics.groupby("lesson_num", sort=False)["title"].agg(list)
    assert [*topics.index] == ["bread", "goals", "stars"]
    assert topics["bread"] == ["Flour", "The oven"]
    assert {*book.topics["course_title"]} == {"Evening"}

    # A killed run leaves the same files: each is written when its lesson is finished.
    for kept in (project / ".lectern/titles").glob("lesson-*.json"):
        finished = json.loads(kept.read_text())
        finished["chapters"][0]["title"] = "Kept from before"
        kept.write_text(json.dumps(finished))
    (course / "broken.vtt").unlink()
    assert lectern_here(*command, "--overwrite").returncode == 0
    assert ingest(project / "course.xlsx").topics["title"].tolist().count("Kept from before") == 2
    assert not [*(project / ".lectern/titles").iterdir()]


def test_the_chapters_of_a_folder_are_printed(course: Path, project: Path) -> None:
    for name in ("goals.txt", "stars.txt", "broken.vtt"):
        (course / name).unlink()
    (course / "bread.md").rename(course / "bread.chapters.md")
    assert lectern_here("chapters", course).stdout == "0:00 Flour\n1:00 The oven\n"
