"""A running `lectern serve`: its HTTP API, and its page as programs call it."""

from __future__ import annotations

import io
import json
import shutil
import signal
import socket
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import openpyxl
import pandas as pd
import pytest
from gradio_client import Client, handle_file

from pipeline.data.workbook import ingest
from pipeline.transcripts import chapter_files
from pipeline.transcripts.known_topics import read_topics
from tests.command import lectern
from tests.server.running_server import (
    AS_TEXT,
    PATIENCE,
    THREE_SUBJECTS,
    health,
    make_project,
    running_server,
    wait_for,
    wait_for_health,
    write_captions,
)
from tests.titles.small import register, write_book

HEADERS = {"headers": ["time", "title"], "metadata": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[Path]:
    """A project as the working directory, without a version."""
    folder = tmp_path_factory.mktemp("page")
    make_project(folder, empty_tracking)
    write_captions(folder / "talk.vtt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setenv("LECTERN_HOSTS", "lectern.example")
        (folder / "tmp").mkdir()
        yield folder


@pytest.fixture(scope="module")
def port(folder: Path, examples: pd.DataFrame) -> Iterator[int]:
    """The port of a server that listens on all addresses. It starts before a version is registered."""
    with running_server(folder, "--host", "0.0.0.0") as (port, process):
        wait_for(lambda: health(port).get("problem"))
        assert "lectern run" in health(port)["problem"]
        refused = _post_titles(port, "we talk about graphs")
        assert (refused.status_code, "lectern run" in refused.json()["detail"]) == (503, True)
        assert int(refused.headers["retry-after"]) >= 1
        page = _client(port)
        assert "lectern run" in page.predict(api_name="/models")[0]
        page.predict([handle_file(str(folder / "talk.vtt"))], api_name="/read")
        assert "lectern run" in page.predict("", None, 0, api_name="/chapters")[0]
        register(folder / "small", examples)
        wait_for_health(port, version="lectern/1", problem=None)
        yield port
        with httpx.stream("GET", f"http://127.0.0.1:{port}/page/gradio_api/heartbeat/somebody") as open_page:
            next(open_page.iter_raw())
            process.terminate()
            code = process.wait(PATIENCE)  # an open page does not delay the stop
        assert code in (0, -signal.SIGTERM)
    assert not list((folder / "tmp").glob("lectern-*")), "files are left behind"


@pytest.fixture
def page(port: int) -> Client:
    return _client(port)


def _client(port: int) -> Client:
    return Client(f"http://127.0.0.1:{port}/page/", verbose=False)


def _post_titles(port: int, *texts: str) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}/titles", json={"texts": texts}, timeout=PATIENCE)


def _upload(page: Client, path: Path) -> str:
    """Return the page's message about a file."""
    return page.predict([handle_file(str(path))], api_name="/read")[0]


def _find_chapters(page: Client, folder: Path) -> None:
    assert "36 lines" in _upload(page, folder / "talk.vtt")
    said, table, *_ = page.predict("", None, 0, api_name="/chapters")
    assert "3 chapters, titled by version lectern/" in said
    assert [row[0] for row in table["data"]] == ["0:00", "1:12", "2:24"]
    assert all(title for _, title in table["data"])


def _table(*rows: tuple[str, str]) -> dict:
    return {**HEADERS, "data": [[*row] for row in rows]}


@pytest.mark.slow
def test_edited_chapters_are_downloaded_in_every_format(page: Client, folder: Path) -> None:
    _find_chapters(page, folder)
    assert not list((folder / "tmp").rglob("*.vtt")), "the upload is kept"
    edited = _table(("0:00", "Bread <script>alert(1)</script>"), ("", ""), ("1:30", "=1+1"), ("150", "*Goals* & more"))
    for suffix, form in chapter_files.SUFFIXES.items():
        said, path = page.predict(edited, "My course", "02", form, api_name="/download")
        assert (Path(path).name, "3 chapters" in said) == (f"My-course-2{suffix}", True)
        ((lesson, topics),) = read_topics(Path(path)).items()
        assert lesson in (("", ""), ("My course", "2"))
        shown = "Bread ‹script›alert(1)‹/script›" if form == "youtube" else "Bread <script>alert(1)</script>"
        assert [(*topic,) for topic in topics] == [(0, shown), (90, "=1+1"), (150, "*Goals* & more")], form


def test_a_transcript_can_be_pasted(page: Client) -> None:
    text = AS_TEXT
    said, table, course, lesson, by, *_ = page.predict(text, None, 1.5, api_name="/chapters")
    assert (len(table["data"]), course, by[:29]) == (3, "Pasted talk", "Titles are written by lectern"), said
    assert page.predict(f"\n{text} ", None, 1.5, api_name="/chapters")[3] == lesson, "the same talk"
    bracketed = page.predict("[0:00] hello\n[Music]\n[0:30] so now we begin", None, 0, api_name="/chapters")
    assert len(bracketed[1]["data"]) == 1, bracketed[0]
    assert "has no times" in page.predict("so now we begin", None, 0, api_name="/chapters")[0]
    assert "There is no transcript" in page.predict(" ", None, 0, api_name="/chapters")[0]
    assert "200" not in page.predict(text, None, 0.01, api_name="/chapters")[0]
    assert "The limit is 20." in page.predict(text, None, 0.01, api_name="/chapters")[0]
    assert "The limit is 5,000." in page.predict(f"{text} {'word ' * 6000}", None, 0, api_name="/chapters")[0]


def test_a_lesson_of_a_workbook_is_chosen_and_keeps_its_topics(page: Client, folder: Path) -> None:
    lines = [("C", lesson, line.seconds, line.text) for lesson in ("1", "2A") for line in THREE_SUBJECTS.lines]
    topics = [("C", "2A", "0:00", "<b>Kept</b>"), ("C", "2A", "1:00", "Too"), ("C", "3", "0:00", "Nothing is said")]
    book = write_book(folder / "week.xlsx", topics, lines)
    said, choice, *_ = page.predict([handle_file(str(book))], api_name="/read")
    assert ("2 talks: 72 lines" in said, choice["visible"]) == (True, True)
    second = next(label for label, _ in choice["choices"] if "lesson 2A of C" in label)
    said, table, course, lesson, *_ = page.predict("", second, 0, api_name="/chapters")
    assert (table["data"], course, lesson) == ([["0:00", "<b>Kept</b>"], ["1:00", "Too"]], "C", "2A"), said


@pytest.mark.slow
def test_an_invalid_row_is_named_and_nothing_is_written(page: Client, folder: Path) -> None:
    page.predict(api_name="/models")
    good = _table(("0:00", "Bread"))
    assert "no chapters yet" in page.predict(good, "", "", "vtt", api_name="/download")[0]
    _find_chapters(page, folder)
    before = sorted(folder.glob("data/corrections/*"))
    wrong = _table(("0:00", "Bread"), ("1:12", ""))
    said, path = page.predict(wrong, "", "", "vtt", api_name="/download")
    assert (said, path) == ("Row 2 (1:12) has no title. Write one, or delete the row.", None)
    assert page.predict(wrong, "", "", False, api_name="/save") == said
    numbered = _table(("0:00", "Bread"), ("1:12", "Chapter 2"))
    assert "no title yet: 1:12 Chapter 2." in page.predict(numbered, "", "", False, api_name="/save")
    assert "must have the columns" in page.predict({"headers": ["a"], "data": [["x"]]}, "", "", False, api_name="/save")
    assert "Row 2 (1:12)" in page.predict(wrong, "", "", ["baseline: first-words"], api_name="/compare")[0]
    assert sorted(folder.glob("data/corrections/*")) == before


@pytest.mark.slow
def test_corrected_chapters_are_saved_as_workbooks_for_training(page: Client, folder: Path) -> None:
    _find_chapters(page, folder)
    table = _table(("0:00", "Bread"), ("1:30.5", "<script>"))
    for course in ("../../Up & away", "../../Up & away", "..", "talk"):
        said = page.predict(table, course, "7", False, api_name="/save")
        assert "lectern use data/raw/sample.xlsx data/corrections/*.xlsx" in said
    saved = sorted((folder / "data/corrections").iterdir())
    assert sorted(path.name.split(".")[0] for path in saved) == ["7", "Up-away-7", "Up-away-7", "talk-7"]
    workbook = ingest(next(path for path in saved if path.name.startswith("Up")))
    assert workbook.topics[["lesson_num", "start_seconds", "title"]].values.tolist() == [
        ["7", 0.0, "Bread"], ["7", 90.5, "<script>"],
    ]  # fmt: skip
    assert len(workbook.lines) == 36
    # Training would use only the later of two transcripts with one name.
    page.predict("0:00 so now we talk of something else", None, 0, api_name="/chapters")
    said = page.predict(_table(("0:00", "Else")), "talk", "7", False, api_name="/save")
    assert "has another transcript of lesson 7 of talk" in said
    assert sorted((folder / "data/corrections").iterdir()) == saved


def test_titles_of_other_models_are_compared(page: Client, folder: Path) -> None:
    _, models = page.predict(api_name="/models")
    names = [name for name, _ in models["choices"]]
    assert {"baseline: first-words", "baseline: keyphrase"} < {*names}
    assert "baseline: frequent-title" not in names  # there is no training split
    _find_chapters(page, folder)
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


def test_other_titles_are_suggested_for_a_chapter(page: Client, folder: Path) -> None:
    _find_chapters(page, folder)
    table = _table(("0:00", "Bread"), ("1:12", "Stars"))
    said, choice = page.predict(table, 2, api_name="/suggest")
    assert (said, "chapter 2, 1:12" in choice["label"], len(choice["choices"]) > 1) == ("", True, True)
    assert "There is no chapter 3." in page.predict(table, 3, api_name="/suggest")[0]


def test_a_trained_model_that_is_not_registered_is_compared(page: Client, folder: Path) -> None:
    shutil.copytree(folder / "small", folder / "models/bart-tiny")
    _, models = page.predict(api_name="/models")
    assert "trained: bart-tiny" in [name for name, _ in models["choices"]]
    _find_chapters(page, folder)
    table = _table(("0:00", "Bread"))
    said, shown = page.predict(table, "", "", ["trained: bart-tiny"], api_name="/compare")
    rows = shown["value"]["data"] if "value" in shown else shown["data"]
    assert [bool(title) for *_, title in rows] == [True], said


@pytest.mark.slow
def test_a_new_version_is_loaded(page: Client, port: int, folder: Path, examples: pd.DataFrame) -> None:
    register(folder / "small", examples, beams=2)
    wait_for_health(port, version="lectern/2")
    assert _post_titles(port, "we talk about graphs").json()["version"] == "lectern/2"
    _find_chapters(page, folder)
    served, models = page.predict(api_name="/models")
    assert "lectern/2" in served
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
    "empty.vtt": (b"", "has no times"),
    "noise.vtt": (bytes(range(256)) * 40, "Save it as UTF-8"),
    "noise.xlsx": (bytes(range(256)) * 40, "is not a workbook"),
    "zeros.txt": (b"\0" * 5000, "is not a text file"),
    "deep.json": (b"[" * 100_000, "JSON"),
    "locked.xlsx": (bytes.fromhex("D0CF11E0A1B11AE1") + "EncryptedPackage".encode("utf-16-le"), "has a password"),
    "bomb.xlsx": (_zip(**{"xl/worksheets/sheet1.xml": b"0" * 150_000_000}), "a text of over 100 MB"),
    "vast.xlsx": (_book_with_a_cell_at("XFD1048576"), "column XFD"),
    "<img src=x>.vtt": (b"WEBVTT\n\nhello", "has no time"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_one_sentence(name: str, page: Client, folder: Path, tmp_path: Path) -> None:
    content, why = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    said = _upload(page, tmp_path / name)
    assert why in said
    assert str(folder) not in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1


def test_files_of_other_types_and_large_files_are_refused(port: int, page: Client, tmp_path: Path) -> None:
    (tmp_path / "talk.exe").write_bytes(b"MZ")
    with pytest.raises(Exception, match="Invalid file type"):
        _upload(page, tmp_path / "talk.exe")
    large = {"files": ("large.vtt", b"WEBVTT\n" * 100_000)}
    assert httpx.post(f"http://127.0.0.1:{port}/page/gradio_api/upload", files=large).status_code == 413


def test_files_of_the_machine_cannot_be_downloaded(port: int, page: Client, folder: Path) -> None:
    for path in ("/etc/passwd", str(folder / "params.yaml"), "params.yaml"):
        assert httpx.get(f"http://127.0.0.1:{port}/page/gradio_api/file={path}").status_code in (403, 404)
    with pytest.raises(Exception):  # noqa: B017, PT011 - the client raises several kinds
        page.predict([{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], api_name="/read")


def test_chapters_are_returned_over_http(port: int, folder: Path) -> None:
    talk = (folder / "talk.vtt").read_text(encoding="utf-8")
    answer = httpx.post(f"http://127.0.0.1:{port}/chapters", json={"transcript": talk, "minutes": 1}, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["version"][:8]) == (200, "lectern/")
    chapters = answer.json()["chapters"]
    assert [each["start_seconds"] for each in chapters][:3] == [0, 72, 144]
    assert len({each["title"] for each in chapters}) == len(chapters)
    assert chapters[0]["fallback"] is False
    for body in (
        {"transcript": " "},
        {"transcript": "so now we begin"},
        {"transcript": talk, "minutes": 0.01},
        {"text": talk},
    ):
        refused = httpx.post(f"http://127.0.0.1:{port}/chapters", json=body, timeout=PATIENCE)
        assert (refused.status_code, "/tmp" in refused.text) == (422, False), body
    assert "/chapters" in httpx.get(f"http://127.0.0.1:{port}/openapi.json").json()["paths"]


@pytest.mark.slow
def test_titles_over_http_equal_those_of_the_command(port: int, folder: Path, examples: pd.DataFrame) -> None:
    texts = examples["text"].str.slice(0, 200).str.strip().tolist()[:4]
    answer = _post_titles(port, *texts).json()
    assert (answer["version"][:8], len(answer["titles"])) == ("lectern/", 4)
    assert [_post_titles(port, text).json()["titles"] for text in texts] == [[title] for title in answer["titles"]]
    assert lectern("title", texts[0], cwd=folder).stdout.strip() == answer["titles"][0]["title"]


def test_invalid_and_large_requests_for_titles_are_refused(port: int) -> None:
    address, text = f"http://127.0.0.1:{port}", "we talk about graphs"
    for body in ({"texts": [text] * 5}, {"texts": []}, {"texts": [" "]}, {"text": [text]}, {"texts": [None]}):
        assert httpx.post(f"{address}/titles", json=body).status_code == 422
    assert httpx.post(f"{address}/titles", content=b"{").status_code == 422
    assert _post_titles(port, "long " * 50_000).status_code == 413
    assert httpx.get(f"{address}/nowhere").status_code == 404
    described = httpx.get(f"{address}/openapi.json").json()["paths"]["/titles"]["post"]["responses"]
    assert {"200", "413", "422", "429", "503", "504"} <= set(described)


def test_a_port_in_use_is_reported(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = lectern("serve", "--port", str(taken.getsockname()[1]), cwd=folder)
    assert (done.returncode, "--port" in done.stderr) == (2, True)


def test_a_foreign_host_name_is_refused(port: int) -> None:
    for path in ("/page/", "/health"):
        assert httpx.get(f"http://127.0.0.1:{port}{path}", headers={"Host": "elsewhere.example"}).status_code == 400
    assert httpx.get(f"http://localhost:{port}/health").status_code == 200


def test_an_upload_from_another_site_is_refused_and_not_stored(port: int, folder: Path) -> None:
    own = {"Host": "lectern.example", "Origin": "https://lectern.example"}
    foreign = [
        {**own, "Origin": "https://evil.example"},
        {**own, "Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ]
    upload, form = "/page/gradio_api/upload", {"files": ("foreign.vtt", b"WEBVTT")}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        for headers in foreign:
            assert client.post(upload, headers=headers, files=form).status_code in (400, 403)
            assert client.post("/titles", headers=headers, json={"texts": ["we talk"]}).status_code in (400, 403)
        assert not list((folder / "tmp").rglob("foreign.vtt"))
        (stored,) = client.post(upload, headers=own, files=form).json()
        assert Path(stored).exists()
        answer = client.get("/health", headers={"Host": "evil.example"}).json()
        assert "does not answer to the host name 'evil.example'" in answer["detail"]


def test_the_page_describes_its_api(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/page/gradio_api/openapi.json") as reply:
        assert json.load(reply)["paths"]
    assert httpx.get(f"http://127.0.0.1:{port}/", follow_redirects=True).status_code == 200
