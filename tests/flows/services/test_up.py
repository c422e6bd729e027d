"""`lectern up`: its servers work, run the deployments of prefect.yaml, and give nothing to pages of other sites."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flows.services.service import free_port
from pipeline.settings import set_params
from tests.command import lectern, processes_in
from tests.conftest import ROOT
from tests.flows.toy_project import SERVED, wait_for
from tests.forking import quick_python
from tests.server.running_server import BROWSER_FLAGS
from tests.web_server import web_server
from tests.whole_project import environment

PROXY = "lectern.example"
FOREIGN_NAME = "evil.example"
"""A host name that the browser resolves to this machine."""

LINK_FOLLOWED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
SENT_BY_PAGES = Path(__file__).with_name("foreign_page.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[SimpleNamespace]:
    """`lectern up` in a small project, with the shipped deployments but without their schedules."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "prefect.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(empty_tracking, folder)
    set_params(["register"], {"pretrained": None}, folder / "params.yaml")
    (folder / "flows").symlink_to(ROOT / "flows")
    (folder / "dvc.yaml").write_text("stages: {work: {cmd: touch begun && sleep 300, outs: [begun]}}")
    deployments = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    (folder / "prefect.yaml").write_text(re.sub("    schedule: .*\n", "", deployments), encoding="utf-8")
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=folder, env=environment(), check=True)
    for name in ("reports", "tmp"):
        (folder / name).mkdir()
    (folder / "reports" / "report.html").write_text("the report")
    ports = {name: free_port() for name in ("prefect", "mlflow", "reports", "page")}
    words = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    process = subprocess.Popen(
        [str(quick_python()), "-m", "lectern", "up", *words],
        cwd=folder,
        env=environment(
            MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db",
            TMPDIR=str(folder / "tmp"),
            LECTERN_HOSTS=PROXY,
            LECTERN_NOTIFY="slack-webhook/nobody",
            PREFECT_WORKER_QUERY_SECONDS="1",
            PYTHONPATH=str(ROOT),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = read_until(process, "Ctrl-C")
        sites = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        yield SimpleNamespace(folder=folder, ports=ports, sites=sites, output=output, **sites)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert processes_in(folder) == []


def started_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in the folder."""
    return [each for each in psutil.process_iter(["cwd"]) if Path(each.info["cwd"] or "/").is_relative_to(folder)]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Return the output up to the line with that text."""
    output = ""
    while text not in output:
        line = process.stdout.readline()
        assert line, output
        output += line
    return output


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
    """Port of another site on this machine."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<title>Another site</title>")
    with web_server(partial(SimpleHTTPRequestHandler, directory=folder)) as address:
        yield int(address.rpartition(":")[2])


def deployment_of(up: SimpleNamespace, name: str) -> dict[str, Any]:
    return httpx.get(f"{up.prefect}/api/deployments/name/{name}").json()


def runs_of(up: SimpleNamespace, name: str) -> list[dict[str, Any]]:
    wanted = {"deployments": {"id": {"any_": [deployment_of(up, name)["id"]]}}}
    return httpx.post(f"{up.prefect}/api/flow_runs/filter", json=wanted).json()


def changeable(up: SimpleNamespace) -> dict[str, Any]:
    """Return everything that the requests of `changes` would change."""
    deployment = deployment_of(up, "promote/by-hand")
    experiments = httpx.get(f"{up.mlflow}/api/2.0/mlflow/experiments/search?max_results=100").json()["experiments"]
    return {
        "pull steps": deployment["pull_steps"],
        "paused": deployment["paused"],
        "runs": httpx.post(f"{up.prefect}/api/flow_runs/count", json={}).json(),
        "experiments": sorted(experiment["name"] for experiment in experiments),
        "uploads": sorted(path.name for path in (up.folder / "tmp").rglob("*.vtt")),
    }


def changes(up: SimpleNamespace) -> list[dict[str, Any]]:
    """Return requests that each change something."""
    deployment = f"{up.prefect}/api/deployments/{deployment_of(up, 'promote/by-hand')['id']}"
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


@pytest.mark.parametrize("host", ["127.0.0.1", FOREIGN_NAME])
def test_a_page_of_another_site_reads_nothing_and_changes_nothing(
    up: SimpleNamespace, window: Page, other_port: int, host: str
):
    before = changeable(up)
    window.goto(f"http://{host}:{other_port}/")
    read = [url for url in readings(up) if window.evaluate("url => attempts.read(url)", url)]
    opened = [url for url in sockets(up) if window.evaluate("url => attempts.open(url)", url)]
    for request in changes(up):
        try_all_ways(window, request)
    assert (read, opened, changeable(up)) == ([], [], before)


def test_a_foreign_host_name_opens_no_page_and_changes_nothing(up: SimpleNamespace, window: Page):
    before = changeable(up)
    statuses = {}
    for url in (rebound(url) for url in readings(up)):
        statuses[url] = window.goto(url).status, window.evaluate("url => attempts.read(url)", url)
    for request in changes(up):
        window.goto(site_of(rebound(request["url"])))
        try_all_ways(window, {**request, "url": rebound(request["url"])})
    assert (set(statuses.values()), changeable(up)) == ({(400, 400)}, before), statuses


@pytest.mark.slow
def test_the_pages_work_at_their_own_addresses(up: SimpleNamespace, window: Page):
    failed = []
    window.on("response", lambda answer: failed.append((answer.status, answer.url)) if answer.status >= 400 else None)
    at = {name: f"http://localhost:{port}" for name, port in up.ports.items()}
    window.goto(at["prefect"] + "/deployments")
    expect(window.get_by_text("nightly").first).to_be_visible(timeout=60_000)
    window.goto(up.mlflow + "/#/experiments")
    expect(window.get_by_text("Default", exact=True).first).to_be_visible(timeout=60_000)
    window.goto(at["reports"])
    window.get_by_role("link", name="report.html").click()
    expect(window.get_by_text("the report")).to_be_visible()
    window.goto(at["page"] + "/page/")
    window.get_by_label("Transcript with times").fill("0:00 hello")
    window.get_by_role("button", name="Find chapters").click()
    expect(window.locator("#status")).to_contain_text("lectern run", timeout=60_000)
    assert 403 not in {status for status, _ in failed}, failed


@pytest.mark.slow
def test_requests_refused_to_other_sites_work_from_a_servers_own_page(up: SimpleNamespace, window: Page):
    before = changeable(up)
    for request in changes(up):
        window.goto(site_of(request["url"]))
        window.evaluate("request => attempts.fetchAsJson(request)", request)
    window.goto(up.prefect)
    assert all(window.evaluate("url => attempts.open(url)", url) for url in sockets(up))
    after = changeable(up)
    assert {name for name in before if before[name] != after[name]} == {*before}, after


@pytest.mark.parametrize("name", ["prefect", "mlflow", "reports", "page"])
def test_a_server_answers_only_programs_links_and_its_own_pages(up: SimpleNamespace, name: str):
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
    assert not is_refused("GET", LINK_FOLLOWED)


def test_every_server_listens_on_this_machine_only_and_refuses_foreign_names(up: SimpleNamespace):
    connections = [
        connection for process in started_in(up.folder) for connection in process.net_connections(kind="inet")
    ]
    listening = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
    ports = {address.port for address in listening}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}
    assert {*up.ports.values()} <= ports
    for port in ports:
        try:
            assert httpx.get(f"http://127.0.0.1:{port}/", headers={"Host": FOREIGN_NAME}).status_code == 400, port
        except httpx.RemoteProtocolError:
            assert port not in up.ports.values()  # a port of Prefect's worker that expects a secret instead of HTTP


def test_only_programs_can_send_events(up: SimpleNamespace):
    for address in sockets(up):
        connect(address).close()
        for headers in ({"Origin": "http://localhost:1"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
            with pytest.raises(InvalidStatus, match="403"):
                connect(address, additional_headers=headers)


def test_a_missing_notification_block_is_reported(up: SimpleNamespace):
    assert "Warning: LECTERN_NOTIFY=slack-webhook/nobody: nobody is notified" in up.output


def test_a_promotion_starts_the_deployment_with_a_trigger_for_it(up: SimpleNamespace):
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "lectern.promoted",
        "resource": {"prefect.resource.id": "lectern.model.lectern"},
    }
    httpx.post(f"{up.prefect}/api/events", json=[event]).raise_for_status()
    wait_for(lambda: runs_of(up, "titles/hourly"))
    assert [run["parameters"] for run in runs_of(up, "titles/hourly")] == [{"again": True}]


def test_the_worker_runs_a_scheduled_flow_in_the_project(up: SimpleNamespace):
    """The stage is still running when the fixture stops everything and looks for processes."""
    url = f"{up.prefect}/api/deployments/{deployment_of(up, 'train/nightly')['id']}"
    schedule = [{"active": True, "schedule": {"interval": 5}}]
    wait_for(lambda: httpx.post(f"{url}/schedules", json=schedule).is_success)  # a busy server answers 503 at first
    wait_for((up.folder / "begun").exists, seconds=120)


def test_a_second_up_in_the_folder_is_refused(up: SimpleNamespace):
    done = lectern("up", cwd=up.folder)
    assert done.returncode == 2
    assert "already runs in this folder" in done.stderr


@pytest.mark.slow
def test_a_taken_port_is_named_with_the_option_that_changes_it(project: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ("--reports-port", str(free_port()), "--page-port", str(free_port()), "--mlflow-port", str(port))
        done = lectern("up", *words, cwd=project)
    assert done.returncode == 2
    assert done.stderr == f"Port {port} is taken. Choose another port with --mlflow-port.\n"


@pytest.mark.hard
def test_up_ends_with_a_message_when_a_server_dies(project: Path):
    ports = [word for name in ("prefect", "reports", "page") for word in (f"--{name}-port", str(free_port()))]
    (project / "prefect.yaml").write_text(SERVED.format(entrypoint="flows.train.train"))
    process = subprocess.Popen(
        [sys.executable, "-m", "lectern", "up", *ports],
        env=environment(MLFLOW_TRACKING_URI="http://tracking.invalid", PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    read_until(process, "Ctrl-C")
    for child in started_in(project):
        if child.cmdline()[1:4] == ["-m", "flows.services.web_apps", "prefect"]:
            child.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The Prefect server ended" in output
    assert processes_in(project) == []
