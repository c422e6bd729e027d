from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from typer.testing import CliRunner

from lectern.app import app
from pipeline.data.workbook import ingest
from pipeline.settings import set_params
from tests.command import kill_once, lectern
from tests.titles.small import register, write_book

TOPICS = [
    ("C", "1", "0:00:00", None, "first"),
    ("C", "1", "0:01:00", "Kept  as it is", None),
    ("C", "1", "0:02:00", None, None),
    ("C", "1", "0:03:00", None, "nothing is said"),
]
WORDS = ("graphs", "threads", "parsers")
LINES = [
    ("C", "1", "0:00:01", "we talk about graphs"),
    ("C", "1", "0:01:01", "=1+1"),
    ("C", "1", "0:02:01", "we talk about threads"),
]


@pytest.fixture
def folder(shared_project: Path) -> Path:
    """A new folder inside the project."""
    return Path(tempfile.mkdtemp(dir=shared_project))


def test_empty_titles_are_filled_and_everything_else_stays(folder: Path) -> None:
    book = write_book(folder / "week.xlsx", TOPICS, LINES)
    original = book.read_bytes()
    done = lectern("title", book, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert book.read_bytes() == original
    out = openpyxl.load_workbook(folder / "week.titled.xlsx")
    rows = list(out["lesson_topics"].iter_rows(min_row=2, values_only=True))
    assert [bool(row[3]) for row in rows] == [True, True, True, False]
    assert rows[1][3] == "Kept  as it is"
    assert [(*row[:3], row[4]) for row in rows] == [(*row[:3], row[4]) for row in TOPICS]
    assert "1 topics have no title" in done.stdout
    assert "row 5" in done.stdout
    assert out["lesson_transcripts"]["D3"].data_type == "s"
    assert not list((folder.parent / ".lectern/titles").iterdir())


def test_titles_of_a_lesson_are_chosen_together_and_its_topics_stay(project: Path, examples: pd.DataFrame) -> None:
    register(project / "small", examples, same=True)
    topics = [("C", lesson, f"0:0{n}:00", None) for lesson in "12" for n in range(3)]
    lines = [("C", lesson, f"0:0{n}:09", f"we talk about {word}") for lesson in "12" for n, word in enumerate(WORDS)]
    book = write_book(project / "week.xlsx", topics, lines)
    assert CliRunner().invoke(app, ["title", str(book)]).exit_code == 0
    rows = ingest(project / "week.titled.xlsx").topics
    assert rows.groupby("lesson_num")["title"].nunique().to_dict() == {"1": 3, "2": 3}


@pytest.mark.slow
def test_an_opening_gets_the_usual_title_of_openings(project: Path, examples: pd.DataFrame) -> None:
    register(project / "small", examples, opening="Intro")
    topics = [*TOPICS[:3], ("C", "2", "0:00:00", None, None), ("C", "2", "0:01:00", "Kept", None)]
    lines = [*LINES, ("C", "2", "0:00:09", "we talk about graphs"), ("C", "2", "0:01:09", "bye")]
    book = write_book(project / "week.xlsx", topics, lines)
    assert lectern("title", book, cwd=project).returncode == 0
    sheet = openpyxl.load_workbook(project / "week.titled.xlsx")["lesson_topics"]
    assert [row[3] == "Intro" for row in sheet.iter_rows(min_row=2, values_only=True)] == [
        True, False, False, True, False,
    ]  # fmt: skip
    done = lectern("title", "we talk about graphs", cwd=project)
    assert (done.returncode, "Intro" in done.stdout) == (0, False)


def test_the_titled_copy_of_a_workbook_with_macros_has_none(folder: Path) -> None:
    book = write_book(folder / "week.xlsx", TOPICS, LINES)
    with zipfile.ZipFile(book, "a") as archive:
        archive.writestr("xl/vbaProject.bin", b"a program")
    done = lectern("title", book.rename(folder / "week.xlsm"), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "xl/vbaProject.bin" not in zipfile.ZipFile(folder / "week.titled.xlsx").namelist()
    assert openpyxl.load_workbook(folder / "week.titled.xlsx")["lesson_topics"]["D2"].value


@pytest.mark.slow
def test_a_folder_of_tables_becomes_a_workbook_that_passes_the_check(folder: Path) -> None:
    (tables := folder / "tables").mkdir()
    pd.DataFrame(TOPICS[:3]).iloc[:, :4].to_csv(
        tables / "lesson_topics.csv", index=False, header=["course_title", "lesson_num", "timestamp", "topic"]
    )
    pd.DataFrame(LINES).to_csv(
        tables / "lesson_transcripts.csv", index=False, header=["course_title", "lesson_num", "timestamp", "transcript"]
    )
    done = lectern("title", tables, "--out", "out.xlsx", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert lectern("check", "out.xlsx", cwd=folder).returncode == 0
    assert openpyxl.load_workbook(folder / "out.xlsx")["lesson_transcripts"]["D3"].data_type == "s"


@pytest.mark.slow
def test_a_file_is_overwritten_only_with_overwrite(folder: Path) -> None:
    book = write_book(folder / "week.xlsx", TOPICS[:3], LINES)
    done = lectern("title", book, "--out", book, cwd=folder)
    assert (done.returncode, "--overwrite" in done.stderr) == (2, True)
    assert lectern("title", book, "--out", book, "--overwrite", cwd=folder).returncode == 0
    assert lectern("check", book, cwd=folder).returncode == 0


def test_a_workbook_with_other_errors_is_rejected_for_them_only(folder: Path) -> None:
    book = write_book(folder / "week.xlsx", [*TOPICS, ("C", "2", "half past", None)], LINES)
    done = lectern("title", book, cwd=folder)
    assert done.returncode == 1
    assert "row 6" in done.stderr
    assert "cell is empty" not in done.stderr


def test_an_empty_title_fails_the_check(project: Path) -> None:
    book = write_book(project / "week.xlsx", TOPICS, LINES)
    assert lectern("check", book, cwd=project).returncode == 1


def test_without_a_registered_version_the_message_says_what_to_run(project: Path) -> None:
    set_params(["register"], {"pretrained": None})
    book = write_book(project / "week.xlsx", TOPICS, LINES)
    done = lectern("title", book, cwd=project)
    assert (done.returncode, "lectern run" in done.stderr) == (1, True)


@pytest.mark.slow
def test_a_killed_run_resumes(folder: Path) -> None:
    count = 300
    topics = [("C", "1", f"{60 * i}", None) for i in range(count)]
    lines = [("C", "1", f"{60 * i + 1}", f"we talk about the number {i} " * (1 + i % 5)) for i in range(count)]
    book = write_book(folder / "week.xlsx", topics, lines)
    (streams := folder / "streams").mkdir()
    kill_once(
        lambda: list((folder.parent / ".lectern/titles").glob("*/*.json")), "title", book, cwd=folder, streams=streams
    )
    kept = sorted((folder.parent / ".lectern/titles").glob("*/*.json"))
    assert not (folder / "week.titled.xlsx").exists()
    finished = json.loads(kept[0].read_text())
    kept[0].write_text(json.dumps([[f"kept from before {n}", False, []] for n in range(len(finished))]))
    done = lectern("title", book, cwd=folder)
    assert done.returncode == 0, done.stderr
    sheet = openpyxl.load_workbook(folder / "week.titled.xlsx")["lesson_topics"]
    titles = [cell.value for cell in sheet["D"]][1:]
    assert sum(title.startswith("kept from before") for title in titles) == len(finished)
    assert len({title.casefold() for title in titles}) == count


@pytest.mark.slow
def test_without_a_usable_title_the_keyphrase_is_written_and_marked(project: Path, examples: pd.DataFrame) -> None:
    register(project / "mute", examples, mute=True)
    book = write_book(project / "week.xlsx", [TOPICS[0][:4], *TOPICS[1:]], LINES)
    done = lectern("title", book, cwd=project)
    assert done.returncode == 0, done.stderr
    assert "2 of them are keyphrases" in done.stdout
    sheet = openpyxl.load_workbook(project / "week.titled.xlsx")["lesson_topics"]
    rows = list(sheet.iter_rows(values_only=True))
    assert rows[0][5] == "fallback"
    assert [(row[3], row[5]) for row in rows[1:4]] == [
        ("talk about graphs", "keyphrase: talk about graphs"),
        ("Kept  as it is", None),
        ("talk about threads", "keyphrase: talk about threads"),
    ]
    assert lectern("check", "week.titled.xlsx", cwd=project).returncode == 1  # the topic without lines has no title
    done = lectern("title", "so in this part we talk about hashing", cwd=project)
    assert (done.returncode, "keyphrase" in done.stderr, "hashing" in done.stdout) == (0, True, True)
