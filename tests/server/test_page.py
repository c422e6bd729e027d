"""The page: what its buttons do, as a program presses them, and then in a browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import openpyxl
import pandas as pd
import pytest
from gradio_client import Client, handle_file
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Page as Window

from pipeline.data.workbook import ingest
from pipeline.transcripts import chapter_files
from pipeline.transcripts.known_topics import read_topics
from tests.server.served import PATIENCE, THREE, health, make_project, server, until, wait_for, write_talk
from tests.titles.small import register, write_book

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
HEADERS = {"headers": ["time", "title"], "metadata": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path, examples: pd.DataFrame) -> Iterator[Path]:
    """A project with a registered version, as the working directory."""
    folder = tmp_path_factory.mktemp("page")
    make_project(folder, empty_tracking)
    write_talk(folder / "talk.vtt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("TMPDIR", str(folder / "tmp"))
        (folder / "tmp").mkdir()
        yield folder


@pytest.fixture(scope="module")
def port(folder: Path, examples: pd.DataFrame) -> Iterator[int]:
    """Of a server that was there before the version."""
    with server(folder) as (port, process):
        until(port, version=None)
        wait_for(lambda: health(port).get("problem"))
        page = _client(port)
        assert "lectern run" in page.predict(api_name="/models")[0]
        page.predict(handle_file(str(folder / "talk.vtt")), api_name="/read")
        assert "lectern run" in page.predict("", None, 0, api_name="/chapters")[0]
        register(folder / "small", examples)
        until(port, version="lectern/1")
        yield port
        with httpx.stream("GET", f"http://127.0.0.1:{port}/page/gradio_api/heartbeat/somebody") as open_page:
            next(open_page.iter_raw())
            process.terminate()
            process.wait(PATIENCE)  # and not for whoever has the page open
    assert not list((folder / "tmp").glob("lectern-*")), "files are left behind"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium that is installed: with Debian by `apt install chromium`."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS, env={**os.environ, "HOME": home})
        yield chromium
        chromium.close()


@pytest.fixture
def page(port: int) -> Client:
    return _client(port)


def _client(port: int) -> Client:
    return Client(f"http://127.0.0.1:{port}/page/", verbose=False)


def _drop(page: Client, path: Path) -> str:
    """What the page says of a file."""
    return page.predict(handle_file(str(path)), api_name="/read")[0]


def _talk(page: Client, folder: Path) -> None:
    assert "36 lines" in _drop(page, folder / "talk.vtt")
    said, table, *_ = page.predict("", None, 0, api_name="/chapters")
    assert "3 chapters, titled by version lectern/" in said
    assert [row[0] for row in table["data"]] == ["0:00", "1:12", "2:24"]
    assert all(title for _, title in table["data"])


def _table(*rows: tuple[str, str]) -> dict:
    return {**HEADERS, "data": [[*row] for row in rows]}


def test_a_talk_is_taken_away_as_it_was_edited_in_every_format(page: Client, folder: Path) -> None:
    _talk(page, folder)
    assert not list((folder / "tmp").rglob("*.vtt")), "what was uploaded is kept"
    edited = _table(("0:00", "Bread <script>alert(1)</script>"), ("", ""), ("1:30", "=1+1"), ("150", "*Goals* & more"))
    for suffix, form in chapter_files.SUFFIXES.items():
        said, path = page.predict(edited, "My course", "02", form, api_name="/download")
        assert (Path(path).name, "3 chapters" in said) == (f"My-course-2{suffix}", True)
        ((lesson, topics),) = read_topics(Path(path)).items()
        assert lesson in (("", ""), ("My course", "2"))
        shown = "Bread ‹script›alert(1)‹/script›" if form == "youtube" else "Bread <script>alert(1)</script>"
        assert [(*topic,) for topic in topics] == [(0, shown), (90, "=1+1"), (150, "*Goals* & more")], form


def test_a_talk_may_be_pasted(page: Client) -> None:
    text = "\n".join(f"0:{int(seconds) // 60:02}:{int(seconds) % 60:02} {words}" for seconds, words in THREE.lines)
    said, table, course, lesson, by = page.predict(text, None, 1.5, api_name="/chapters")
    assert (len(table["data"]), course, lesson, by[:16]) == (3, "Pasted talk", "1", "version lectern/"), said
    bracketed = page.predict("[0:00] hello\n[Music]\n[0:30] so now we begin", None, 0, api_name="/chapters")
    assert len(bracketed[1]["data"]) == 1, bracketed[0]
    assert "holds no times" in page.predict("so now we begin", None, 0, api_name="/chapters")[0]
    assert "There is no transcript" in page.predict(" ", None, 0, api_name="/chapters")[0]
    assert "200" not in page.predict(text, None, 0.01, api_name="/chapters")[0]
    assert "20 are taken" in page.predict(text, None, 0.01, api_name="/chapters")[0]
    assert "5,000 are taken" in page.predict(f"{text} {'word ' * 6000}", None, 0, api_name="/chapters")[0]


def test_a_lesson_of_a_workbook_is_chosen_and_keeps_its_topics(page: Client, folder: Path) -> None:
    lines = [("C", lesson, *line) for lesson in ("1", "2A") for line in THREE.lines]
    topics = [("C", "2A", "0:00", "<b>Kept</b>"), ("C", "2A", "1:00", "Too"), ("C", "3", "0:00", "Nothing is said")]
    book = write_book(folder / "week.xlsx", topics, lines)
    said, choice, *_ = page.predict(handle_file(str(book)), api_name="/read")
    assert ("2 lessons: 72 lines" in said, choice["visible"]) == (True, True)
    said, table, course, lesson, _ = page.predict("", "lesson 2A of C", 0, api_name="/chapters")
    assert (table["data"], course, lesson) == ([["0:00", "<b>Kept</b>"], ["1:00", "Too"]], "C", "2A"), said


def test_a_wrong_row_is_named_and_nothing_is_made_of_it(page: Client, folder: Path) -> None:
    page.predict(api_name="/models")
    good = _table(("0:00", "Bread"))
    assert "no talk yet" in page.predict(good, "", "", "vtt", api_name="/download")[0]
    _talk(page, folder)
    before = sorted(folder.glob("data/corrections/*"))
    wrong = _table(("0:00", "Bread"), ("1:12", ""))
    said, path = page.predict(wrong, "", "", "vtt", api_name="/download")
    assert (said, path) == ("Row 2 (1:12) has no title. Write one, or take the row away.", None)
    assert page.predict(wrong, "", "", api_name="/save") == said
    numbered = _table(("0:00", "Bread"), ("1:12", "Chapter 2"))
    assert "for 1:12 Chapter 2. Write it" in page.predict(numbered, "", "", api_name="/save")
    assert "other columns" in page.predict({"headers": ["a"], "data": [["x"]]}, "", "", api_name="/save")
    assert "Row 2 (1:12)" in page.predict(wrong, "", "", ["baseline: first-words"], api_name="/compare")[0]
    assert sorted(folder.glob("data/corrections/*")) == before


def test_what_was_corrected_is_kept_as_workbooks_for_training(page: Client, folder: Path) -> None:
    _talk(page, folder)
    table = _table(("0:00", "Bread"), ("1:30.5", "<script>"))
    for course in ("../../Up & away", "../../Up & away", "..", "talk"):
        said = page.predict(table, course, "7", api_name="/save")
        assert "lectern use data/raw/sample.xlsx data/corrections/*.xlsx" in said
    saved = sorted((folder / "data/corrections").iterdir())
    assert sorted(path.name.split(".")[0] for path in saved) == ["7", "Up-away-7", "Up-away-7", "talk-7"]
    workbook = ingest(next(path for path in saved if path.name.startswith("Up")))
    assert workbook.topics[["lesson_num", "start_seconds", "title"]].values.tolist() == [
        ["7", 0.0, "Bread"], ["7", 90.5, "<script>"],
    ]  # fmt: skip
    assert len(workbook.lines) == 36
    # Another talk of the same name would take its place in the next training.
    page.predict("0:00 so now we talk of something else", None, 0, api_name="/chapters")
    said = page.predict(_table(("0:00", "Else")), "talk", "7", api_name="/save")
    assert "keeps another talk as lesson 7 of talk" in said
    assert sorted((folder / "data/corrections").iterdir()) == saved


def test_other_models_titles_stand_beside(page: Client, folder: Path) -> None:
    _, models = page.predict(api_name="/models")
    names = [name for name, _ in models["choices"]]
    assert {"baseline: first-words", "baseline: keyphrase"} < {*names}
    assert "baseline: frequent-title" not in names  # there is no training split
    _talk(page, folder)
    version = next(name for name in names if name.startswith("lectern/1"))
    table = _table(("0:00", "Bread"), ("1:12", "Stars"))
    said, shown = page.predict(table, "", "", [version, "baseline: first-words"], api_name="/compare")
    rows = shown["value"]["data"] if "value" in shown else shown["data"]
    assert [(time, mine, first) for time, mine, _, first in rows] == [
        ("0:00", "Bread", "knead the dough with flour and"),
        ("1:12", "Stars", "the telescope shows distant galaxies and"),
    ], said
    assert all(title for _, _, title, _ in rows)
    assert "Tick" in page.predict(table, "", "", [], api_name="/compare")[0]


def test_a_model_that_is_trained_and_not_registered_stands_beside(page: Client, folder: Path) -> None:
    shutil.copytree(folder / "small", folder / "models/t5-tiny")
    _, models = page.predict(api_name="/models")
    assert "trained: t5-tiny" in [name for name, _ in models["choices"]]
    _talk(page, folder)
    table = _table(("0:00", "Bread"))
    said, shown = page.predict(table, "", "", ["trained: t5-tiny"], api_name="/compare")
    rows = shown["value"]["data"] if "value" in shown else shown["data"]
    assert [bool(title) for *_, title in rows] == [True], said


def test_a_new_version_is_picked_up(page: Client, port: int, folder: Path, examples: pd.DataFrame) -> None:
    register(folder / "small", examples, beams=2)
    until(port, version="lectern/2")
    _talk(page, folder)
    served, models = page.predict(api_name="/models")
    assert served == "version lectern/2"
    assert "lectern/2 (challenger)" in [name for name, _ in models["choices"]]


def _zip(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def _book_with_a_cell_at(place: str) -> bytes:
    book = openpyxl.Workbook()
    book.active.title = "lesson_transcripts"
    for name in ("lesson_transcripts", "lesson_topics"):
        sheet = book[name] if name in book.sheetnames else book.create_sheet(name)
        sheet.append(["course_title", "lesson_num", "timestamp", "transcript"])
        sheet[place] = "far"
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


HOSTILE = {
    "empty.vtt": (b"", "holds no"),
    "noise.vtt": (bytes(range(256)) * 40, "Save it as UTF-8"),
    "noise.xlsx": (bytes(range(256)) * 40, "is not a workbook"),
    "zeros.txt": (b"\0" * 5000, "is not a text file"),
    "deep.json": (b"[" * 100_000, "JSON"),
    "locked.xlsx": (bytes.fromhex("D0CF11E0A1B11AE1") + "EncryptedPackage".encode("utf-16-le"), "has a password"),
    "bomb.xlsx": (_zip(**{"xl/worksheets/sheet1.xml": b"0" * 150_000_000}), "a text of more than 100 MB"),
    "vast.xlsx": (_book_with_a_cell_at("XFD1048576"), "column XFD"),
    "<img src=x>.vtt": (b"WEBVTT\n\nhello", "has no time"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence(name: str, page: Client, folder: Path, tmp_path: Path) -> None:
    content, why = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    said = _drop(page, tmp_path / name)
    assert why in said
    assert str(folder) not in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1


def test_a_file_of_another_kind_or_too_large_a_one_is_refused(port: int, page: Client, tmp_path: Path) -> None:
    (tmp_path / "talk.exe").write_bytes(b"MZ")
    with pytest.raises(Exception, match="Invalid file type"):
        _drop(page, tmp_path / "talk.exe")
    large = {"files": ("large.vtt", b"WEBVTT\n" * 100_000)}
    assert httpx.post(f"http://127.0.0.1:{port}/page/gradio_api/upload", files=large).status_code == 413


def test_files_of_the_machine_are_not_handed_out(port: int, page: Client, folder: Path) -> None:
    for path in ("/etc/passwd", str(folder / "params.yaml"), "params.yaml"):
        assert httpx.get(f"http://127.0.0.1:{port}/page/gradio_api/file={path}").status_code in (403, 404)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the library says
        page.predict({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, api_name="/read")


def test_chapters_can_be_had_over_http(port: int, folder: Path) -> None:
    talk = (folder / "talk.vtt").read_text(encoding="utf-8")
    answer = httpx.post(f"http://127.0.0.1:{port}/chapters", json={"transcript": talk, "minutes": 1}, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["version"][:8]) == (200, "lectern/")
    chapters = answer.json()["chapters"]
    assert (len(chapters), [each["start_seconds"] for each in chapters][:3]) == (4, [0, 72, 144])
    assert all(each["title"] and each["fallback"] is False for each in chapters)
    for body in (
        {"transcript": " "},
        {"transcript": "so now we begin"},
        {"transcript": talk, "minutes": 0.01},
        {"text": talk},
    ):
        refused = httpx.post(f"http://127.0.0.1:{port}/chapters", json=body, timeout=PATIENCE)
        assert (refused.status_code, "/tmp" in refused.text) == (422, False), body
    assert "/chapters" in httpx.get(f"http://127.0.0.1:{port}/openapi.json").json()["paths"]


def test_another_sites_name_does_not_lead_here(port: int) -> None:
    for path in ("/page/", "/health"):
        assert httpx.get(f"http://127.0.0.1:{port}{path}", headers={"Host": "elsewhere.example"}).status_code == 400
    assert httpx.get(f"http://localhost:{port}/health").status_code == 200


def test_the_page_describes_its_api(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/page/gradio_api/openapi.json") as reply:
        assert json.load(reply)["paths"]
    assert httpx.get(f"http://127.0.0.1:{port}/", follow_redirects=True).status_code == 200


def _open(browser: Browser, port: int, size: dict[str, int]) -> tuple[Window, set[str]]:
    """A window with the page, and the addresses other than the server's that it asks."""
    window, strangers = browser.new_page(viewport=size), set()
    window.set_default_timeout(PATIENCE * 1000)
    expect.set_options(timeout=PATIENCE * 1000)
    own = f"http://127.0.0.1:{port}/"
    window.on("request", lambda asked: asked.url.startswith((own, "data:", "blob:")) or strangers.add(asked.url))
    window.on("dialog", lambda dialog: (strangers.add(f"dialog {dialog.message}"), dialog.dismiss()))
    window.goto(f"{own}page/")
    return window, strangers


def _write(window: Window, row: int, column: int, text: str) -> None:
    cell = window.get_by_test_id(f"cell-{row}-{column}")
    cell.dblclick()
    editor = cell.locator("input, textarea")
    editor.fill(text)
    editor.press("Enter")
    expect(cell).to_contain_text(text)


def test_a_person_finds_corrects_and_takes_away_chapters(browser: Browser, port: int, folder: Path) -> None:
    window, strangers = _open(browser, port, WIDE)
    said = window.get_by_label("What happened")
    window.locator("input[type=file]").first.set_input_files(folder / "talk.vtt")
    expect(said).to_have_value("talk, 3:36: 36 lines are read. Press Chapters.")
    window.get_by_role("button", name="Chapters").click()
    expect(said).to_have_value(re.compile("3 chapters"))
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    _write(window, 0, 1, evil)
    _write(window, 1, 0, "9:99:99")
    window.get_by_role("button", name="Download").click()
    expect(said).to_have_value("Row 2: '9:99:99' is not a time. Write h:mm:ss or mm:ss.")
    expect(window.get_by_test_id("toast-text").first).to_contain_text("'9:99:99' is not a time")
    _write(window, 1, 0, "1:20")
    with window.expect_download() as download:
        window.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "talk-1.txt"
    assert Path(download.value.path()).read_text(encoding="utf-8").splitlines()[0].startswith("0:00 ‹img src=x")
    for box in window.get_by_role("checkbox").all():
        box.check()
    window.get_by_role("button", name="Compare").click()
    expect(said).to_have_value(re.compile("stand beside"))
    expect(window.locator("#compared")).to_contain_text(evil)
    assert window.locator("img[src=x]").count() == 0
    assert strangers == set()
    window.close()


def test_a_phone_shows_all_of_it(browser: Browser, port: int) -> None:
    window, strangers = _open(browser, port, NARROW)
    window.get_by_label("Transcript, with times").fill("0:00 <b>hello</b> and welcome\n1:00 <script>alert(1)</script>")
    window.get_by_role("button", name="Chapters").click()
    said = window.get_by_label("What happened")
    expect(said).to_have_value(re.compile("chapter"))
    for box in window.get_by_role("checkbox").all():
        box.check()
    window.get_by_role("button", name="Compare").click()
    expect(said).to_have_value(re.compile("stand beside"))
    expect(window.locator("#compared")).to_contain_text("baseline: first-words")
    assert window.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert window.get_by_label("Course").bounding_box()["x"] < NARROW["width"] / 4, "columns stand below one another"
    assert strangers == set()
    window.close()
