from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
import yaml

from pipeline.files import folder_aside, write_text
from pipeline.settings import set_params
from tests.command import lectern
from tests.conftest import ROOT

TOPICS = [
    ("course_title", "lesson_num", "timestamp", "topic"),
    ("C", "1", "0:00:00", "Intro"),
    ("C", "1", "0:01:00", "End"),
]
LINES = [
    ("course_title", "lesson_num", "timestamp", "transcript"),
    ("C", "1", "0:00:01", "hi"),
    ("C", "1", "0:01:01", "bye"),
]


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in (("lesson_topics", TOPICS), ("lesson_transcripts", LINES)):
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    path = tmp_path / "lessons.xlsx"
    book.save(path)
    return path


@pytest.fixture
def broken(workbook: Path) -> Path:
    book = openpyxl.load_workbook(workbook)
    book["lesson_topics"]["C3"] = "half past"
    book["lesson_topics"]["D2"] = None
    book.save(workbook)
    return workbook


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "use",
        "run",
        "title",
        "chapters",
        "export",
        "serve",
        "models",
        "search",
        "matrix",
        "doctor",
        "promote",
        "rollback",
        "up",
        "train",
        "split",
    ],
)
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    done = lectern(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Example:" in done.stdout


def test_a_sound_workbook_passes_the_check(workbook: Path) -> None:
    done = lectern("check", workbook.name, cwd=workbook.parent)
    assert done.returncode == 0, done.stderr
    assert "2 topics, 2 lines, 0 errors" in done.stdout


def test_all_problems_of_a_workbook_are_listed_with_their_places(broken: Path) -> None:
    done = lectern("check", str(broken), "--json", cwd=broken.parent)
    places = {(p["sheet"], p["row"], p["column"]) for p in json.loads(done.stdout) if p["severity"] == "error"}
    assert done.returncode == 1
    assert {("lesson_topics", 3, "C (timestamp)"), ("lesson_topics", 2, "D (topic)")} <= places


def test_a_command_outside_a_project_says_where_to_go(tmp_path: Path) -> None:
    done = lectern("models", cwd=tmp_path)
    assert done.returncode == 2
    assert "not in a Lectern project" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["no-such-command"], ["train"], ["title", "a b", "--candidates", "0"], ["check"], ["matrix", "t6"]]
)
def test_a_wrong_command_line_exits_with_2(words: list[str], project: Path) -> None:
    assert lectern(*words, cwd=project).returncode == 2


def test_a_wrong_setting_is_named_with_its_place_and_value(project: Path) -> None:
    params = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(params.replace("topics: 400", "topics: many"), encoding="utf-8")
    done = lectern("sample", cwd=project)
    assert done.returncode == 2
    assert "sample.topics" in done.stderr
    assert "'many'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_whose_input_is_missing_says_what_to_run(project: Path) -> None:
    done = lectern("merge", cwd=project)
    assert done.returncode == 2
    assert "dvc repro" in done.stderr


def test_an_export_without_a_registered_model_says_what_to_run(project: Path) -> None:
    done = lectern("export", cwd=project)
    assert done.returncode == 1
    assert "lectern run" in done.stderr


def test_a_missing_text_file_is_not_read_as_a_passage(project: Path) -> None:
    done = lectern("title", "talk.txt", cwd=project)
    assert done.returncode == 2
    assert "File 'talk.txt' does not exist" in done.stderr


def test_an_empty_passage_is_a_usage_error(project: Path) -> None:
    assert lectern("title", "-", cwd=project, stdin=" \n").returncode == 2


@pytest.mark.slow
def test_a_tracking_server_that_does_not_answer_is_reported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = lectern("models", cwd=project)
    assert done.returncode == 75
    assert "does not answer" in done.stderr


@pytest.fixture
def dvc_project(project: Path) -> Path:
    for words in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=project, check=True)
    return project


def test_use_copies_the_workbook_names_it_chooses_a_seed_and_changes_nothing_else(
    dvc_project: Path, workbook: Path
) -> None:
    before = (dvc_project / "params.yaml").read_text(encoding="utf-8").splitlines()
    done = lectern("use", str(workbook), cwd=dvc_project)
    after = (dvc_project / "params.yaml").read_text(encoding="utf-8").splitlines()
    assert done.returncode == 0, done.stderr
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [line.split(":")[0].strip() for line in changed] == ["workbook", "seed"]
    assert yaml.safe_load("\n".join(after))["ingest"]["workbook"] == "data/workbooks/lessons.xlsx"
    assert (dvc_project / "data/workbooks/lessons.xlsx").read_bytes() == workbook.read_bytes()
    assert (dvc_project / "data/workbooks/lessons.xlsx.dvc").is_file()


@pytest.mark.slow
def test_use_accepts_a_folder_of_tables(dvc_project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, rows in (("lesson_topics.csv", TOPICS), ("Lesson_Transcripts.CSV", LINES)):
        (folder / name).write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    done = lectern("use", str(folder), cwd=dvc_project)
    assert done.returncode == 0, done.stderr
    assert lectern("ingest", cwd=dvc_project).returncode == 0


@pytest.mark.slow
def test_use_joins_several_workbooks(dvc_project: Path, workbook: Path) -> None:
    corrected = workbook.with_name("corrected.xlsx")
    book = openpyxl.load_workbook(workbook)
    book["lesson_topics"]["D2"] = "Welcome"
    book.save(corrected)
    done = lectern("use", workbook.name, corrected.name, cwd=dvc_project)
    assert (done.returncode, "1 lessons; 1 lessons of earlier workbooks were replaced" in done.stdout) == (0, True), (
        done.stderr
    )
    assert yaml.safe_load((dvc_project / "params.yaml").read_text())["ingest"]["workbook"] == "data/workbooks/joined"
    assert lectern("ingest", cwd=dvc_project).returncode == 0
    assert "Welcome" in pd.read_parquet(dvc_project / "data/interim/topics.parquet")["title"].tolist()


def test_use_can_be_repeated_and_keeps_the_seed(dvc_project: Path, workbook: Path) -> None:
    for seed in (None, 7):
        if seed:
            set_params(["split"], {"seed": seed}, dvc_project / "params.yaml")
        assert lectern("use", str(workbook), cwd=dvc_project).returncode == 0
    assert yaml.safe_load((dvc_project / "params.yaml").read_text())["split"]["seed"] == 7
    assert [path.name for path in (dvc_project / "data/workbooks").glob("*.dvc")] == ["lessons.xlsx.dvc"]


def test_use_refuses_a_broken_workbook_and_changes_nothing(dvc_project: Path, broken: Path) -> None:
    before = (dvc_project / "params.yaml").read_bytes()
    done = lectern("use", str(broken), cwd=dvc_project)
    assert done.returncode == 1
    assert "half past" in done.stderr
    assert (dvc_project / "params.yaml").read_bytes() == before
    assert not (dvc_project / "data/workbooks").exists()


def test_use_sets_broken_rows_aside_and_says_so_in_params(dvc_project: Path, workbook: Path) -> None:
    book = openpyxl.load_workbook(workbook)
    book["lesson_transcripts"]["C3"] = "half past"
    book.save(workbook)
    done = lectern("use", "--set-aside", str(workbook), cwd=dvc_project)
    assert done.returncode == 0, done.stderr
    assert "set aside: bad timestamp" in done.stderr
    settings = yaml.safe_load((dvc_project / "params.yaml").read_text())["ingest"]
    assert settings == {"workbook": "data/workbooks/lessons.xlsx", "broken_rows": "set-aside"}


CAPTIONS = "WEBVTT\n\n00:00.000 --> 00:04.000\nlook up\n\n00:04.000 --> 00:08.000\nair rises\n"


@pytest.mark.parametrize("command", ["check", "use", "title"])
def test_captions_given_to_another_command_are_pointed_to_chapters(command: str, project: Path) -> None:
    (project / "talk.vtt").write_text(CAPTIONS)
    done = lectern(command, "talk.vtt", cwd=project)
    assert done.returncode == 2
    assert "captions (WebVTT)" in done.stderr
    assert re.search(r"`lectern chapters \S*talk\.vtt`", done.stderr)


@pytest.mark.parametrize(
    ("command", "name", "content"),
    [
        ("title", "talk.vtt", CAPTIONS),
        ("title", "broken.xlsx", "no workbook"),
        ("chapters", "talk.txt", "no times"),
        ("check", "talk.vtt", CAPTIONS),
    ],
)
def test_a_file_is_refused_before_heavy_libraries_are_loaded(
    command: str, name: str, content: str, project: Path
) -> None:
    (project / name).write_text(content)
    script = (
        "import sys; from lectern.app import app\n"
        f"try: app([{command!r}, {name!r}])\n"
        "except BaseException as error: print(error)\n"
        "print({'torch', 'mlflow', 'transformers', 'sklearn', 'yake', 'prefect', 'dvc'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=project, check=True, capture_output=True, text=True)
    assert name in done.stdout
    assert done.stdout.endswith("set()\n")


def test_a_passage_is_read_without_pandas() -> None:
    script = (
        "import sys; from pipeline.titles.read_passage import read_passage\n"
        "read_passage('so now we add the flour'); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_help_does_not_load_torch() -> None:
    script = "import sys, lectern.app; sys.exit(not {'torch', 'mlflow', 'gradio'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_a_name_that_is_too_long_is_a_usage_error(project: Path) -> None:
    (project / "talk.vtt").write_text(CAPTIONS)
    done = lectern("chapters", "talk.vtt", "--out", f"{'x' * 300}.txt", cwd=project)
    assert done.returncode == 2
    assert "name too long" in done.stderr


@pytest.mark.parametrize("name", ["x" * 250, "\u00e9" * 125])
def test_a_file_may_have_the_longest_name_that_a_disk_allows(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "words")
    for text in ("one", "two"):
        with folder_aside(tmp_path / f"{name[:-1]}y") as folder:
            (folder / "file").write_text(text)
    assert (tmp_path / name).read_text() == "words"
