"""Calls of the page's API by programs, valid and invalid: the files they can reach, and the answers they get."""

from __future__ import annotations

import json
import math
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.server.page_server import (
    SETTINGS,
    TABLE,
    Writer,
    answer,
    call,
    file_at,
    new_visitor,
    page_server,
    upload,
    wait_until,
)
from tests.server.running_server import AS_TEXT, PATIENCE, write_captions


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer()


@pytest.fixture(scope="module")
def address(writer: Writer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with page_server(writer, tmp_path_factory.mktemp("files")) as address:
        yield address


@pytest.fixture
def visitor(address: str) -> Iterator[httpx.Client]:
    with new_visitor(address) as client:
        yield client


def join(visitor: httpx.Client, name: str, data: list[Any], session: str) -> httpx.Response:
    """Call a function as the page itself does."""
    functions = {each["api_name"]: each["id"] for each in visitor.get("/config").json()["dependencies"]}
    body = {"data": data, "fn_index": functions[name], "session_hash": session}
    return visitor.post("/gradio_api/queue/join", json=body)


@pytest.fixture
def other(address: str) -> Iterator[httpx.Client]:
    """A client with another cookie."""
    with new_visitor(address) as client:
        yield client


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return write_captions(tmp_path / "talk.vtt")


@pytest.mark.slow
def test_a_file_is_read_once_by_its_visitor(visitor: httpx.Client, talk: Path) -> None:
    at = file_at(upload(visitor, talk))
    said = answer(visitor, "read", [at])[0]
    assert "36 lines read" in said, said
    assert call(visitor, "read", [at]).status_code == 403
    twice = [file_at(upload(visitor, talk))] * 2
    assert "36 lines read" in answer(visitor, "read", twice)[0]


def test_an_upload_gives_a_program_its_cookie(address: str, talk: Path) -> None:
    with httpx.Client(base_url=f"{address}/page", timeout=PATIENCE) as program:
        assert "36 lines read" in answer(program, "read", [file_at(upload(program, talk))])[0]


@pytest.mark.slow
def test_only_uploads_of_the_visitor_are_read_and_no_address_is_opened(
    visitor: httpx.Client, other: httpx.Client, talk: Path, tmp_path: Path
) -> None:
    theirs = upload(other, talk)
    mine = upload(visitor, talk)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.5)
        web = f"http://127.0.0.1:{listening.getsockname()[1]}/talk.vtt"
        paths = [
            str(tmp_path / "missing.vtt"), str(talk), "/etc/passwd", str(ROOT / "params.yaml"), "params.yaml", "", "/",
            theirs, f"{Path(mine).parent}/../../../{'/'.join(Path(theirs).parts[-3:])}", f"{mine}/..",
            f"{Path(mine).parent}/missing.vtt", f"/{mine}\0", web, web.replace("http", "ftp"), f"file://{talk}",
            "data:text/plain;base64,MDowMCBoZWxsbw==", "x" * 5000,
        ]  # fmt: skip
        answers = []
        for path in paths:
            for sent in (file_at(path), {**file_at(path), "url": web}, {**file_at(path), "is_stream": True}):
                answers.append(call(visitor, "read", [sent]))
                answers.append(call(visitor, "read", [file_at(mine), sent]))
                answers.append(visitor.post("/gradio_api/call/v2/read", json={"files": [sent]}))
                answers.append(join(visitor, "read", [[sent]], "somebody"))
        with pytest.raises(TimeoutError):
            listening.accept()
    assert {(each.status_code, each.text) for each in answers} == {(403, answers[0].text)}
    assert "Upload it" in answers[0].json()["detail"]
    assert "36 lines read" in answer(visitor, "read", [{**file_at(mine), "url": web}])[0]
    assert "36 lines read" in answer(other, "read", [file_at(theirs)])[0]


def test_a_file_is_refused_in_other_arguments(visitor: httpx.Client, talk: Path) -> None:
    def answers(path: str) -> list[tuple[int, str]]:
        file = file_at(path)
        table = {**TABLE, "data": [["0:00", file]]}
        calls = [
            call(visitor, "chapters", file, None, 0),
            call(visitor, "chapters", "0:00 hello", file, 0),
            call(visitor, "chapters", "0:00 hello", None, file),
            call(visitor, "download", table, "", "", "vtt"),
            call(visitor, "download", {**TABLE, "metadata": file}, file, "", "vtt"),
            call(visitor, "compare", TABLE, "", "", [file]),
            call(visitor, "models", file),
            call(visitor, "read", file),
            call(visitor, "suggest", TABLE, file),
            call(visitor, "save", TABLE, "", "", file),
        ]
        return [(each.status_code, each.text) for each in calls]

    assert {status for status, _ in answers(str(talk))} == {400}
    assert answers(str(talk)) == answers("/missing.vtt")


def test_only_its_visitor_can_download_a_file(visitor: httpx.Client, other: httpx.Client) -> None:
    answer(visitor, "chapters", AS_TEXT, None, 0, session_hash="mine")
    said, file = answer(visitor, "download", TABLE, "Course", "1", "md", session_hash="mine")
    assert "1 chapter" in said
    path = file["url"].partition("/page")[2]
    downloaded = visitor.get(path)
    assert (downloaded.status_code, "Bread" in downloaded.text) == (200, True)
    assert "attachment" in downloaded.headers["content-disposition"]
    assert (other.get(path).status_code, other.get(f"{path}x").text) == (404, other.get(path).text)
    for elsewhere in ("/etc/passwd", str(ROOT / "params.yaml"), "http://127.0.0.1:9/", file["path"] + "/.."):
        assert visitor.get(f"/gradio_api/file={elsewhere}").text == other.get(path).text


OPEN = {
    "GET /", "HEAD /", "GET /config", "GET /config/", "GET /svelte/{path:path}", "GET /static/{path:path}",
    "GET /assets/{path:path}", "GET /favicon.ico", "GET /theme.css", "GET /robots.txt", "GET /pwa_icon",
    "GET /manifest.json", "GET /gradio_api/app_id", "GET /gradio_api/app_id/", "GET /gradio_api/info",
    "GET /gradio_api/info/", "GET /gradio_api/openapi.json", "GET /gradio_api/startup-events",
    "GET /gradio_api/theme.css", "GET /gradio_api/heartbeat/{session_hash}", "GET /gradio_api/queue/data",
    "POST /gradio_api/queue/join", "POST /gradio_api/call/{api_name}", "POST /gradio_api/call/{api_name}/",
    "POST /gradio_api/call/v2/{api_name}", "POST /gradio_api/call/v2/{api_name}/",
    "GET /gradio_api/call/{api_name}/{event_id}", "GET /gradio_api/call/v2/{api_name}/{event_id}",
    "POST /gradio_api/upload",  # Lectern replaces this route and GET file=
    "GET /gradio_api/file={path_or_url:path}", "HEAD /gradio_api/file={path_or_url:path}",
}  # fmt: skip
"""Gradio's routes that the page needs. Only those for files take a path, and none takes an address."""


def _routes(routes: list[Any]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if hasattr(route, "original_router"):
            yield from _routes(route.original_router.routes)
        elif hasattr(route, "methods"):
            yield from ((method, route.path) for method in route.methods or ())


def test_only_the_routes_that_the_page_needs_are_open(visitor: httpx.Client) -> None:
    app = FastAPI()
    gr.mount_gradio_app(app, gr.Blocks(analytics_enabled=False), "/page", mcp_server=False)
    routes = {f"{method} {path}" for method, path in _routes(app.routes[-1].app.router.routes)}
    assert len(routes) > 60, "the routes are listed in another way"
    assert routes >= OPEN, "Gradio has renamed routes"
    for route in sorted(routes - OPEN - {"HEAD /openapi.json"}):
        method, path = route.split()
        filled = re.sub(r"\{[^}]*\}", "1", path)
        assert visitor.request(method, filled).status_code == 404, route


MALFORMED = {
    "no JSON": b"{",
    "a list": b"[]",
    "null": b"null",
    "nothing": b"",
    "no data": b"{}",
    "data null": b'{"data": null}',
    "data text": b'{"data": "x"}',
    "no arguments": b'{"data": []}',
    "too many arguments": b'{"data": [1, 2, 3, 4, 5, 6, 7, 8, 9]}',
    "deep": b'{"data": [' + b"[" * 50_000 + b"]" * 50_000 + b"]}",
    "a number of many digits": b'{"data": [' + b"1" * 5000 + b"]}",
    "not UTF-8": b'{"data": ["\xff"]}',
    "a session that is none": b'{"data": [null], "session_hash": {"a": 1}}',
    "a session of half a character": b'{"data": [null], "session_hash": "\\ud800"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_call_gets_a_message(body: bytes, visitor: httpx.Client) -> None:
    for path in ("call/read", "call/v2/read", "call/chapters", "call/download", "call/save", "queue/join"):
        headers = {"Content-Type": "application/json"}
        refused = visitor.post(f"/gradio_api/{path}", content=body, headers=headers)
        assert (400 <= refused.status_code < 500, "Traceback" in refused.text) == (True, False), (path, refused.text)
        assert refused.json()["detail"].endswith((".", "list them.")), refused.text


WRONG = {
    "read": [
        [None], [1], ["/etc/passwd"], [{}], [[]], [[None]], [["/etc/passwd"]], [[{"path": 1}]], [[{"path": "a"}]],
        [file_at("a")], [[file_at("a")] * 21], [None, None], [],
    ],
    "chapters": [
        [1, None, 0], ["a\ud800", None, 0], [["a"], None, 0], ["a", 3, 0], ["a", None, "x"], ["a", None, -1],
        ["a", None, math.nan], ["a", None, math.inf], ["a", None, -math.inf], ["a", None, 10**400], ["a", None, []],
    ],
    "download": [
        [None, "", "", "vtt"], [[], "", "", "vtt"], [{"data": [["0:00", "a"]]}, "", "", "vtt"],
        [{**TABLE, "data": None}, "", "", "vtt"], [{**TABLE, "data": ["0:00"]}, "", "", "vtt"],
        [{**TABLE, "data": [["0:00", math.nan]]}, "", "", "vtt"],
        [{**TABLE, "data": [["0:00", "\udfff"]]}, "", "", "vtt"], [{**TABLE, "data": [["0:00", {}]]}, "", "", "vtt"],
        [TABLE, 1, "", "vtt"], [TABLE, "", "\ud800", "vtt"],
        [TABLE, "", "", ["vtt"]], [TABLE, "", ""],
    ],
    "suggest": [[TABLE, "x"], [TABLE, -1], [TABLE, math.nan], [TABLE, []], [None, 1]],
    "save": [[TABLE, "", "", None], [TABLE, "", "", "perhaps"], [TABLE, "", "", []], [TABLE, "", ""]],
    "compare": [[TABLE, "", "", None], [TABLE, "", "", "x"], [TABLE, "", "", [1]], [TABLE, "", "", ["\ud800"]]],
    "nowhere": [[]],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_a_wrong_type_is_named(name: str, visitor: httpx.Client) -> None:
    for data in WRONG[name]:
        body = json.dumps({"data": data}).encode()
        headers = {"Content-Type": "application/json"}
        refused = visitor.post(f"/gradio_api/call/{name}", content=body, headers=headers)
        assert 400 <= refused.status_code < 500, (data, refused.text)
        assert refused.json()["detail"][-1] == ".", refused.text
    by_name = visitor.post(f"/gradio_api/call/v2/{name}", json={"nothing like it": 1})
    assert 400 <= by_name.status_code < 500
    assert ("no argument 'nothing like it'" in by_name.text) == (name != "nowhere")


@pytest.mark.parametrize(
    "table",
    [[], [[]], [["0:00"]], [["0:00", "a", "b"]], [["0:00", "a"], ["1:00"]], [[None, None]], [[0, 1.5], [True, False]],
     [["0:00", "a"]] * 100, [["1e999", "a"]], [["0:00", "a" * 5000]], [["9" * 5000, "a"]]],
)  # fmt: skip
def test_a_table_of_any_shape_gets_a_message(table: list, visitor: httpx.Client) -> None:
    answer(visitor, "chapters", AS_TEXT, None, 0, session_hash="shapes")
    table = {**TABLE, "data": table}
    for name, *data in (("download", table, "", "", "vtt"), ("timeline", table), ("suggest", table, 1)):
        said, *_ = answer(visitor, name, *data, session_hash="shapes")
        assert "bug in Lectern" not in said
        assert said.endswith(".") or (name, said) == ("timeline", ""), (name, said)


def _text() -> st.SearchStrategy[str]:
    return st.text(max_size=20) | st.sampled_from(
        [
            "0:00 hello\n0:30 you",
            "[",
            "{}",
            "WEBVTT\n\n0:00 --> 0:01\nhi",
            "a\ud800",
            "0:00",
            "\0",
            "&#" + "1" * 5000 + ";",
        ]
    )


def _anything() -> st.SearchStrategy[Any]:
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | _text() | st.just(file_at("/etc/passwd"))
    return st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text(), inner, max_size=3))


CELLS = st.lists(st.lists(_text() | st.none() | st.floats() | st.integers(), max_size=3), max_size=4)
TABLES = st.builds(lambda cells: {"headers": ["time", "title"], "data": cells}, CELLS)
ARGUMENTS = {
    "read": st.tuples(_anything() | st.lists(_anything(), max_size=2)),
    "timeline": st.tuples(TABLES),
    "copy": st.tuples(TABLES, _text(), _text(), st.sampled_from(["youtube", "json", "xlsx"]) | _text()),
    "chapters": st.tuples(_text(), st.none() | _text(), st.none() | st.floats() | st.integers()),
    "download": st.tuples(TABLES, _text(), _text(), st.sampled_from(["vtt", "xlsx", "md"]) | _text()),
    "compare": st.tuples(TABLES, _text(), _text(), st.lists(_text(), max_size=2)),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_call_raises_an_internal_error(name: str, address: str, caplog: pytest.LogCaptureFixture) -> None:
    with httpx.Client(base_url=f"{address}/page", timeout=PATIENCE) as visitor:
        visitor.get("/")
        answer(visitor, "chapters", "0:00 hello\n0:30 you", None, 0, session_hash="fuzzed")

        @settings(max_examples=40, deadline=None)
        @given(data=ARGUMENTS[name] | st.tuples(*[_anything()] * 4) | st.lists(_anything(), max_size=4))
        def check(data: Any) -> None:
            body = json.dumps({"data": data, "session_hash": "fuzzed"}).encode()
            headers = {"Content-Type": "application/json"}
            sent = visitor.post(f"/gradio_api/call/{name}", content=body, headers=headers)
            if sent.status_code == 200:
                said = visitor.get(f"/gradio_api/call/{name}/{sent.json()['event_id']}").text
                assert "bug in Lectern" not in said
                assert "event: complete" in said or "is not in the list of choices" in said, said
            else:
                assert (400 <= sent.status_code < 500, sent.json()["detail"][-1]) == (True, "."), sent.text

        check()
    assert "the page failed" not in caplog.text


@pytest.mark.parametrize("path", ["titles", "chapters"])
def test_no_body_raises_an_internal_error(path: str, address: str) -> None:
    field = {"titles": "texts", "chapters": "transcript"}[path]
    bodies = _anything() | st.builds(
        lambda value, minutes: {field: value, "minutes": minutes}, _anything(), _anything()
    )
    bodies |= st.builds(lambda value: {field: value}, _text() | st.lists(_text(), max_size=3))
    with httpx.Client(base_url=address, timeout=PATIENCE) as client:

        @settings(max_examples=60, deadline=None)
        @given(body=bodies)
        def check(body: Any) -> None:
            headers = {"Content-Type": "application/json"}
            sent = client.post(f"/{path}", content=json.dumps(body).encode(), headers=headers)
            assert sent.status_code in (200, 400, 422), sent.text

        check()


def _hang_up(address: str, path: str, body: dict[str, Any]) -> Callable[[], None]:
    """Send a request. Return a function that closes its connection."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    )
    connection.sendall(head.encode() + b"\r\n" + content)
    return connection.close


@pytest.fixture
def held(writer: Writer) -> Iterator[Writer]:
    """A model that waits at its first text until the test ends or sets `going`."""
    writer.going.clear()
    writer.written.clear()
    yield writer
    writer.going.set()


def _waiting(address: str) -> int:
    return httpx.get(f"{address}/health").json()["waiting"]


def test_requests_of_disconnected_clients_are_not_titled(address: str, held: Writer) -> None:
    first = _hang_up(address, "/titles", {"texts": ["at hand", "rest", "more"]})
    wait_until(lambda: held.written)
    gone = [_hang_up(address, "/titles", {"texts": [f"gone {n}"]}) for n in range(6)]
    wait_until(lambda: _waiting(address) == 6)
    for hang_up in (first, *gone):
        hang_up()
    wait_until(lambda: _waiting(address) == 0)
    held.going.set()
    assert httpx.post(f"{address}/titles", json={"texts": ["next"]}, timeout=PATIENCE).status_code == 200
    assert held.written == ["at hand", "next"]


def test_disconnected_clients_leave_the_queue(address: str, held: Writer) -> None:
    hang_ups = [_hang_up(address, "/titles", {"texts": ["at hand"]})]
    wait_until(lambda: held.written)
    for _ in range(SETTINGS.waiting):
        hang_ups.append(_hang_up(address, "/titles", {"texts": ["gone"]}))
    wait_until(lambda: _waiting(address) == SETTINGS.waiting)
    refused = httpx.post(f"{address}/titles", json={"texts": ["next"]})
    assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (429, True)
    for hang_up in hang_ups:
        hang_up()
    wait_until(lambda: _waiting(address) == 0)
    next_one = _hang_up(address, "/titles", {"texts": ["next"]})
    wait_until(lambda: _waiting(address) == 1)
    next_one()


def test_chapters_for_disconnected_clients_are_not_written(address: str, held: Writer) -> None:
    long = _hang_up(address, "/chapters", {"transcript": AS_TEXT})
    wait_until(lambda: held.written)
    gone = [_hang_up(address, "/chapters", {"transcript": f"0:00 gone {n}\n0:30 gone"}) for n in range(4)]
    time.sleep(0.5)  # time to arrive: the server does not report these requests
    for hang_up in (long, *gone):
        hang_up()
    with ThreadPoolExecutor(1) as asking:
        body = {"transcript": "0:00 next\n0:30 next"}
        asked = asking.submit(httpx.post, f"{address}/chapters", json=body, timeout=PATIENCE)
        wait_until(lambda: _waiting(address) == 1)
        held.going.set()
        assert asked.result().status_code == 200
    assert [text.split()[-1] for text in held.written[1:]] == ["next"]


def test_chapters_for_visitors_who_left_the_page_are_not_written(
    visitor: httpx.Client, address: str, held: Writer
) -> None:
    with ExitStack() as streams:
        for n in range(4):
            text = AS_TEXT if n == 0 else f"0:00 gone {n}\n0:30 gone"
            assert join(visitor, "chapters", [text, None, None, 0], f"gone{n}").status_code == 200
            stream = visitor.stream("GET", "/gradio_api/queue/data", params={"session_hash": f"gone{n}"})
            next(streams.enter_context(stream).iter_raw())
        wait_until(lambda: held.written)
    with ThreadPoolExecutor(1) as asking, httpx.Client(base_url=f"{address}/page", timeout=PATIENCE) as stays:
        asked = asking.submit(answer, stays, "chapters", "0:00 next\n0:30 next", None, 0)
        wait_until(lambda: _waiting(address) == 1)
        held.going.set()
        assert "1 chapter" in asked.result()[0]
    assert [text.split()[-1] for text in held.written[1:]] == ["next"]
