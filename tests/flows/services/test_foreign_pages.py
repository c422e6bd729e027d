"""Pages of other sites, in a real browser: they can neither read nor start anything at the servers of `lectern up`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flows.services.service import free_port
from tests.conftest import ROOT
from tests.flows.toy_project import wait_for
from tests.forking import quick_python
from tests.server.running_server import BROWSER_FLAGS
from tests.whole_project import environment

PROXY = "lectern.example"
FOREIGN_NAME = "evil.example"
"""A host name that the browser resolves to this machine."""

SENT_BY_PAGES = Path(__file__).with_name("foreign_page.js").read_text(encoding="utf-8")

PREFECT_YAML = """
deployments:
  - name: nightly
    entrypoint: flows/train.py:train
    description: Everything.
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[SimpleNamespace]:
    """The servers of `lectern up` in a small project: their addresses, and the project's folder."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "dvc.yaml", "prefect.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(empty_tracking, folder)
    (folder / "prefect.yaml").write_text(PREFECT_YAML)
    for name in ("reports", "tmp"):
        (folder / name).mkdir()
    (folder / "reports" / "report.html").write_text("the report")
    ports = {name: free_port() for name in ("prefect", "mlflow", "reports", "page")}
    words = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    process = subprocess.Popen(
        [str(quick_python()), "-m", "lectern", "up", *words],
        cwd=folder,
        env=environment(
            MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db", TMPDIR=str(folder / "tmp"), LECTERN_HOSTS=PROXY
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = []
        while "Ctrl-C" not in "".join(said):
            said.append(process.stdout.readline())
            assert said[-1], "".join(said)
        sites = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        up = SimpleNamespace(pid=process.pid, folder=folder, ports=ports, sites=sites, **sites)
        wait_for(lambda: deployments(up))
        yield up
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    flags = [*BROWSER_FLAGS, f"--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1"]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        chromium = playwright.chromium.launch(executable_path=path, args=flags, env={**os.environ, "HOME": home})
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def other_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where another site of this machine is served."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<title>Another site</title>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def deployments(up: SimpleNamespace) -> list[dict[str, Any]]:
    return httpx.post(f"{up.prefect}/api/deployments/filter", json={}).json()


def kept(up: SimpleNamespace) -> dict[str, Any]:
    """What a foreign page could change."""
    (deployment,) = deployments(up)
    experiments = httpx.get(f"{up.mlflow}/api/2.0/mlflow/experiments/search?max_results=100").json()["experiments"]
    return {
        "pull steps": deployment["pull_steps"],
        "paused": deployment["paused"],
        "runs": httpx.post(f"{up.prefect}/api/flow_runs/count", json={}).json(),
        "experiments": sorted(experiment["name"] for experiment in experiments),
        "uploads": sorted(path.name for path in (up.folder / "tmp").rglob("*.vtt")),
    }


def changes(up: SimpleNamespace) -> list[dict[str, Any]]:
    """Requests that each change something."""
    deployment = f"{up.prefect}/api/deployments/{deployments(up)[0]['id']}"
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": "touch sprung"}}]
    return [
        {"url": deployment, "method": "PATCH", "json": {"pull_steps": steps}},
        {"url": f"{deployment}/create_flow_run", "json": {"state": {"type": "SCHEDULED"}}},
        {"url": f"{deployment}/pause_deployment"},
        {"url": f"{up.mlflow}/api/2.0/mlflow/experiments/create", "json": {"name": "planted"}},
        {"url": f"{up.mlflow}/ajax-api/2.0/mlflow/experiments/create", "json": {"name": "planted too"}},
        {"url": f"{up.page}/page/gradio_api/upload", "file": "planted.vtt"},
    ]


def try_all_ways(window: Page, request: dict[str, Any]) -> None:
    for attempt in ("fetchAsJson", "fetchAsText", "submitForm"):
        window.evaluate("([attempt, request]) => attempts[attempt](request)", [attempt, request])


def rebound(url: str) -> str:
    return url.replace("127.0.0.1", FOREIGN_NAME)


def site_of(url: str) -> str:
    return "/".join(url.split("/")[:3])


def readings(up: SimpleNamespace) -> list[str]:
    return [
        f"{up.prefect}/api/health",
        f"{up.prefect}/",
        f"{up.mlflow}/ajax-api/2.0/mlflow/experiments/search?max_results=10",
        f"{up.mlflow}/",
        f"{up.reports}/report.html",
        f"{up.page}/health",
        f"{up.page}/page/config",
    ]


def sockets(up: SimpleNamespace) -> list[str]:
    api = up.prefect.replace("http", "ws") + "/api"
    return [f"{api}/events/in", f"{api}/logs/out"]


@pytest.fixture
def window(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    window = context.new_page()
    window.add_init_script(SENT_BY_PAGES)
    yield window
    context.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", FOREIGN_NAME])
def test_a_page_of_another_site_reads_nothing_and_changes_nothing(
    up: SimpleNamespace, window: Page, other_port: int, host: str
):
    before = kept(up)
    window.goto(f"http://{host}:{other_port}/")
    read = [url for url in readings(up) if window.evaluate("url => attempts.read(url)", url)]
    opened = [url for url in sockets(up) if window.evaluate("url => attempts.open(url)", url)]
    for request in changes(up):
        try_all_ways(window, request)
    assert (read, opened, kept(up)) == ([], [], before)


def test_a_foreign_name_that_leads_to_a_server_opens_none_of_its_pages(up: SimpleNamespace, window: Page):
    before = kept(up)
    statuses = {}
    for url in (rebound(url) for url in readings(up)):
        statuses[url] = window.goto(url).status, window.evaluate("url => attempts.read(url)", url)
    for request in changes(up):
        window.goto(site_of(rebound(request["url"])))
        try_all_ways(window, {**request, "url": rebound(request["url"])})
    assert (set(statuses.values()), kept(up)) == ({(400, 400)}, before), statuses


def test_the_pages_of_the_servers_work_at_their_own_addresses(up: SimpleNamespace, window: Page):
    failed = []
    window.on("response", lambda answer: failed.append((answer.status, answer.url)) if answer.status >= 400 else None)
    for host in ("127.0.0.1", "localhost"):
        at = {name: f"http://{host}:{port}" for name, port in up.ports.items()}
        for path in ("/deployments", "/v2/deployments"):
            window.goto(at["prefect"] + path)
            expect(window.get_by_text("nightly").first).to_be_visible(timeout=60_000)
        window.goto(at["mlflow"] + "/#/experiments")
        expect(window.get_by_text("Default", exact=True).first).to_be_visible(timeout=60_000)
        window.goto(at["reports"])
        window.get_by_role("link", name="report.html").click()
        expect(window.get_by_text("the report")).to_be_visible()
        window.goto(at["page"] + "/page/")
        window.get_by_label("Transcript with times").fill("0:00 hello")
        window.get_by_role("button", name="Find chapters").click()
        expect(window.locator("#status textarea")).to_have_value(re.compile("lectern run"), timeout=60_000)
    assert 403 not in {status for status, _ in failed}, failed


def test_the_requests_that_are_refused_to_other_sites_work_from_a_servers_own_page(up: SimpleNamespace, window: Page):
    before = kept(up)
    for request in changes(up):
        window.goto(site_of(request["url"]))
        window.evaluate("request => attempts.fetchAsJson(request)", request)
    window.goto(up.prefect)
    assert all(window.evaluate("url => attempts.open(url)", url) for url in sockets(up))
    after = kept(up)
    assert {name for name in before if before[name] != after[name]} == {*before}, after


def test_a_link_on_another_page_opens_a_servers_page(up: SimpleNamespace, window: Page, other_port: int):
    for site in up.sites.values():
        window.goto(f"http://127.0.0.1:{other_port}/")
        window.set_content(f"<a href='{site}'>link</a>")
        with window.expect_response(lambda answer, site=site: answer.url.startswith(site)) as opened:
            window.get_by_text("link").click()
        assert opened.value.status < 400


@pytest.mark.parametrize("name", ["prefect", "mlflow", "reports", "page"])
def test_a_server_answers_programs_and_its_own_pages_only(up: SimpleNamespace, name: str):
    def is_refused(method: str, headers: dict[str, str]) -> bool:
        return httpx.request(method, up.sites[name], headers=headers).status_code in (400, 403)

    own = [{}, {"Origin": up.sites[name]}, {"Sec-Fetch-Site": "same-origin"}]
    own += [{"Host": PROXY, "Origin": f"https://{PROXY}"}, {"Host": f"localhost:{up.ports[name]}"}]
    other_server = next(site for other, site in up.sites.items() if other != name)
    foreign = [{"Origin": origin} for origin in ("null", other_server, f"http://localhost:{up.ports[name]}")]
    foreign += [{"Host": FOREIGN_NAME}, {"Host": FOREIGN_NAME, "Origin": f"http://{FOREIGN_NAME}"}]
    foreign += [{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}]
    assert "frame-ancestors 'self'" in httpx.get(up.sites[name]).headers["content-security-policy"]
    for method in ("GET", "POST", "OPTIONS"):
        assert not any(is_refused(method, headers) for headers in own)
        assert all(is_refused(method, headers) for headers in foreign)


def test_nothing_that_up_starts_answers_to_a_foreign_name(up: SimpleNamespace):
    family = [psutil.Process(up.pid), *psutil.Process(up.pid).children(recursive=True)]
    connections = [connection for process in family for connection in process.net_connections(kind="inet")]
    ports = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    assert {*up.ports.values()} <= ports
    for port in ports:
        try:
            assert httpx.get(f"http://127.0.0.1:{port}/", headers={"Host": FOREIGN_NAME}).status_code == 400, port
        except httpx.RemoteProtocolError:
            assert port not in up.ports.values()  # Prefect's runner awaits a secret there, and speaks no HTTP


def test_events_are_taken_from_programs_only(up: SimpleNamespace):
    for socket in sockets(up):
        connect(socket).close()
        for headers in ({"Origin": "http://localhost:1"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
            with pytest.raises(InvalidStatus, match="403"):
                connect(socket, additional_headers=headers)
