"""A workbook is downloaded from a supported address, within limits."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml

from flows.graph.workbook import adopt
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.settings import set_params
from tests.command import lectern_here
from tests.titles.small import write_book
from tests.web_server import web_server

SECRET = "pLanTed-s3cret"


class Web:
    """A web server at `address`. `answers` has a function for each path; `gone` is set when a client disconnects."""

    address: str

    def __init__(self, answers: dict[str, Callable[[BaseHTTPRequestHandler], None]]) -> None:
        self.gone = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200)
                self.end_headers()

            def do_GET(self) -> None:
                try:
                    answers[self.path.partition("?")[0]](self)
                    self.wfile.flush()
                except OSError:
                    web.gone.set()

            def log_message(self, *_: object) -> None:
                pass

        self.handler = Handler


def start(handler: BaseHTTPRequestHandler, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def endless(handler: BaseHTTPRequestHandler) -> None:
    start(handler)
    while True:
        handler.wfile.write(b"\0" * 65_536)


def dripping(handler: BaseHTTPRequestHandler) -> None:
    start(handler)
    pause = threading.Event()
    while True:
        handler.wfile.write(b"\0")
        pause.wait(0.05)


def bomb(handler: BaseHTTPRequestHandler) -> None:
    start(handler, Content_Encoding="gzip")
    handler.wfile.write(gzip.compress(b"\0" * 50_000_000))


def elsewhere(address: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: start(handler, 302, Location=address)


@pytest.fixture
def folder(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project with small limits, and a folder of its own for temporary files."""
    for words in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=project, check=True)
    set_params(["fetch"], {"megabytes": 2, "seconds": 60})
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site")))
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return project


@pytest.fixture
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_book(
        tmp_path_factory.mktemp("books") / "lessons.xlsx",
        [("C", "1", "0:00:00", "Old")],
        [("C", "1", "0:00:01", "so we begin")],
    )


@pytest.fixture
def web(book: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    hidden = tmp_path_factory.mktemp("hidden") / "lessons.xlsx"
    shutil.copy(book, hidden)

    def whole(handler: BaseHTTPRequestHandler) -> None:
        start(handler)
        handler.wfile.write(book.read_bytes())

    web = Web(
        {
            "/lessons.xlsx": whole,
            "/endless.xlsx": endless,
            "/dripping.xlsx": dripping,
            "/bomb.xlsx": bomb,
            "/moved.xlsx": elsewhere("/lessons.xlsx"),
            "/to-file.xlsx": elsewhere(hidden.as_uri()),
            "/to-ftp.xlsx": elsewhere("ftp://127.0.0.1:9/lessons.xlsx"),
        }
    )
    with web_server(web.handler) as web.address:
        yield web


def files(folder: Path) -> dict[str, bytes]:
    """The user's files, without those of DVC."""
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".dvc" not in path.parts
    }


def temporary() -> list[Path]:
    return [path for path in Path(tempfile.gettempdir()).iterdir() if path.name != "dvc"]


@pytest.mark.parametrize("path", ["/lessons.xlsx", "/moved.xlsx"])
def test_a_workbook_can_be_downloaded_and_updated(path: str, folder: Path, web: Web, book: Path) -> None:
    for _ in range(2):
        workbook = adopt(web.address + path)
        assert workbook.read_bytes() == book.read_bytes()
        noted = yaml.safe_load(Path(f"{workbook}.dvc").read_text(encoding="utf-8"))
        assert noted["deps"][0]["path"] == web.address + path
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True, check=True
    )
    assert f"{workbook}.dvc" not in status.stdout
    assert temporary() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "limits", "refusal", "message"),
    [
        ("/endless.xlsx", {"megabytes": 2, "seconds": 60}, Rejected, r"sends more than 2 MB.*fetch\.megabytes"),
        ("/bomb.xlsx", {"megabytes": 2, "seconds": 60}, Rejected, "sends more than 2 MB"),
        (
            "/dripping.xlsx",
            {"megabytes": 2, "seconds": 4},
            TemporaryFailure,
            r"did not arrive within 4 s.*fetch\.seconds",
        ),
        ("/to-file.xlsx", {"megabytes": 2, "seconds": 60}, TemporaryFailure, "DVC cannot read"),
        ("/to-ftp.xlsx", {"megabytes": 2, "seconds": 60}, TemporaryFailure, "DVC cannot read"),
    ],
)
def test_a_download_that_breaks_a_limit_or_leaves_the_web_leaves_no_files(
    path: str, limits: dict[str, int], refusal: type[Exception], message: str, folder: Path, web: Web
) -> None:
    set_params(["fetch"], limits)
    before = files(folder)
    with pytest.raises(refusal, match=message):
        adopt(web.address + path)
    assert files(folder) == before
    assert temporary() == []
    if path in ("/endless.xlsx", "/dripping.xlsx"):
        assert web.gone.wait(60), "the download continues"


def test_an_unsupported_address_or_one_with_a_key_is_refused_without_a_request(folder: Path) -> None:
    (folder / ".dvc/config.local").write_text("['remote \"files\"']\n    url = file:///etc\n", encoding="utf-8")
    before = files(folder)
    for address, message in (
        ("file:///etc/passwd", "file:// is not supported. Use http://, https:// or s3://"),
        ("ftp://127.0.0.1/lessons.xlsx", "ftp:// is not supported"),
        ("ssh://127.0.0.1/lessons.xlsx", "ssh:// is not supported"),
        ("FILE:///etc/passwd", "file:// is not supported"),
        ("remote://files/lessons.xlsx", "file:// is not supported"),
        ("http://127.0.0.1:9/a/..", "names no file"),
        ("http://127.0.0.1:9/", "names no file"),
        (f"https://bucket.example/lessons.xlsx?X-Amz-Signature={SECRET}", "holds a password or a key"),
        (f"https://example/lessons.xlsx?token={SECRET}", "holds a password or a key"),
        (f"https://example/lessons.xlsx?code={SECRET}", "holds a password or a key"),
        (f"s3://key:{SECRET}@bucket/lessons.xlsx", "holds a password or a key"),
    ):
        done = lectern_here("use", address)
        assert done.returncode == UsageError.exit_code, address
        assert message in done.stderr
        assert SECRET not in done.stderr
    assert files(folder) == before


@pytest.mark.slow
def test_a_dvc_remote_keeps_the_password_out_of_the_project(folder: Path, web: Web, book: Path) -> None:
    (folder / ".dvc/config.local").write_text(f"['remote \"site\"']\n    url = {web.address}\n", encoding="utf-8")
    workbook = adopt("remote://site/lessons.xlsx")
    assert workbook.read_bytes() == book.read_bytes()
    assert "remote://site/lessons.xlsx" in Path(f"{workbook}.dvc").read_text(encoding="utf-8")


@pytest.mark.slow
def test_nothing_changes_if_dvc_cannot_store_the_workbook(folder: Path, web: Web, book: Path) -> None:
    workbook = adopt(f"{web.address}/lessons.xlsx")
    before = files(folder)
    write_book(book, [("C", "1", "0:00:00", "New")], [("C", "1", "0:00:01", "so we begin")])
    shutil.rmtree(folder / ".dvc/cache")
    (folder / ".dvc/cache").write_text("in its way", encoding="utf-8")
    with pytest.raises(TemporaryFailure):
        adopt(f"{web.address}/lessons.xlsx")
    assert files(folder) == before
    assert workbook.is_file()


def test_a_wrong_limit_is_named(folder: Path, web: Web) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for wrong in ({"megabytes": 0, "seconds": 1}, {"megabytes": 1, "seconds": -1}, {"megabytes": 1}):
        Path("params.yaml").write_text(yaml.safe_dump({**params, "fetch": wrong}), encoding="utf-8")
        with pytest.raises(UsageError, match=r"fetch\.(megabytes|seconds)"):
            adopt(f"{web.address}/lessons.xlsx")
