"""The requests that a server answers, depending on host name and on the site of the page that sends them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from pipeline.errors import UsageError
from pipeline.server.same_origin import OriginCheck, SameOrigin

HOST = "127.0.0.1:4200"
LOOPBACK = OriginCheck.listening_on("127.0.0.1")
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def is_answered(check: OriginCheck = LOOPBACK, method: str = "GET", **headers: str) -> bool:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return check.refusal(method, {"host": HOST} | named) is None


@pytest.mark.parametrize("host", ["127.0.0.1:4200", "localhost:4200", "LOCALHOST", "[::1]:4200", "127.0.0.1:14200"])
def test_a_program_and_the_servers_own_page_are_answered(host: str) -> None:
    assert is_answered(host=host)
    assert is_answered(host=host, origin=f"http://{host}", method="POST")
    assert is_answered(host=host, sec_fetch_site="same-origin", method="POST")
    assert is_answered(host=host, sec_fetch_site="none")


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:4200", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "[evil.example]"),
        *("10.0.0.7", "0.0.0.0", "", "127.0.0.1:4200:80", "127.0.0.1:port", "[127.0.0.1]", "localhost."),
    ],
)
def test_a_foreign_host_name_is_refused(host: str) -> None:
    assert not is_answered(host=host)
    assert not is_answered(host=host, origin=f"http://{host}")


@given(
    st.text() | st.from_regex(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?(\.evil\.example)?", fullmatch=True)
)
def test_any_origin_but_the_servers_own_is_refused(origin: str) -> None:
    assert is_answered(origin=origin, method="POST") == (origin.lower() in (f"http://{HOST}", f"https://{HOST}"))


@pytest.mark.parametrize(
    "origin", ["null", "", "http://127.0.0.1", "http://127.0.0.1:80", "file://", "ftp://127.0.0.1:4200"]
)
def test_a_page_from_a_file_a_sandbox_or_another_port_is_refused(origin: str) -> None:
    assert not is_answered(origin=origin)


def test_a_default_port_can_be_left_out() -> None:
    assert is_answered(host="localhost", origin="http://localhost:80")
    assert is_answered(host="localhost:443", origin="https://localhost")
    assert not is_answered(host="localhost", origin="http://localhost:443")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_without_origin_is_refused_unless_a_link_is_followed(site: str) -> None:
    link = LINK | {"sec-fetch-site": site}
    assert is_answered(**link)
    assert not is_answered(**link, method="POST")
    assert not is_answered(**link | {"sec-fetch-dest": "iframe"})
    assert not is_answered(sec_fetch_site=site, sec_fetch_mode="no-cors", sec_fetch_dest="image")


def test_a_server_on_all_addresses_answers_to_addresses_and_configured_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LECTERN_HOSTS", "Lectern.example, other.example")
    everywhere = OriginCheck.listening_on("0.0.0.0")
    for host in ("127.0.0.1:8080", "10.0.0.7:8080", "[fd00::7]:8080", "lectern.example", "other.example:8443"):
        assert is_answered(everywhere, host=host, origin=f"https://{host}", method="POST")
        assert not is_answered(everywhere, host=host, origin="https://evil.example")
    assert not is_answered(everywhere, host="evil.example")
    assert is_answered(OriginCheck.listening_on("127.0.0.1"), host="lectern.example", origin="https://lectern.example")


def test_a_container_of_docker_queuetop_is_answered() -> None:
    assert is_answered(host="host.docker.internal:4200")
    assert not is_answered(host="host.docker.internal.evil.example:4200")


def test_a_configured_name_may_have_a_port_and_the_message_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LECTERN_HOSTS", "lectern.example:8080, 10.0.0.7:80, [fd00::7]")
    check = OriginCheck.listening_on("127.0.0.1")
    for host in ("lectern.example", "lectern.example:4200", "10.0.0.7:8080", "[fd00::7]:80"):
        assert is_answered(check, host=host)
    refusal = check.refusal("GET", {"host": "other.example:8080"})
    assert refusal
    assert "the host name 'other.example'. To allow the name, add it" in refusal.why


@pytest.mark.parametrize(
    "name",
    ["http://lectern.example", "*", "*.example", "lectern.example/mlflow", "lectern..example", "[lectern]", "a b"],
)
def test_an_invalid_host_name_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LECTERN_HOSTS", f"lectern.example,{name}")
    with pytest.raises(UsageError, match=f"{re.escape(repr(name))} in LECTERN_HOSTS is not a host name"):
        OriginCheck.listening_on("127.0.0.1")


@pytest.mark.parametrize(
    ("own", "policy"),
    [({}, "frame-ancestors 'self'"), ({"Content-Security-Policy": "img-src 'self'"}, "img-src 'self'")],
)
def test_answers_get_a_frame_policy_unless_they_have_a_policy(own: dict[str, str], policy: str) -> None:
    client = TestClient(SameOrigin(PlainTextResponse("hello", headers=own), check=LOOPBACK), base_url=f"http://{HOST}")
    assert client.get("/").headers["content-security-policy"] == policy
    refused = client.get("/", headers={"Origin": "null"})
    assert (refused.status_code, refused.headers["content-security-policy"]) == (403, "frame-ancestors 'self'")
