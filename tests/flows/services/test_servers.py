import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prefect import get_client

from flows.services.deployments import read_deployments
from flows.services.prefect_server import api_url, prefect_service
from flows.services.service import free_port
from pipeline.errors import UsageError
from tests.command import processes_in
from tests.flows.toy_project import MakeProject, PrefectServer, dvc, wait_for

ROOT = Path(__file__).parents[3]

# Without dependencies it is always stale; it counts its runs and takes as long as the file `seconds` says.
STAGE = """
    stages:
      work:
        cmd: echo x >> runs.txt && sleep $(cat seconds)
"""

EVERY_FIVE_SECONDS = """
deployments:
  - name: nightly
    entrypoint: flows/train.py:train
    description: Everything.
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
    schedule: {interval: 5}
"""


# The first one ends when somebody makes a file `go`; each notes that it ran.
TWO_STAGES = """
    stages:
      one:
        cmd: echo one >> ran.txt && until [ -e go ]; do sleep 0.1; done && touch one.txt
        outs: [one.txt]
      two:
        cmd: echo two >> ran.txt && touch two.txt
        deps: [one.txt]
        outs: [two.txt]
        meta: {slot: gpu}
"""


@pytest.fixture
def folder(make_project: MakeProject, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is told of no Prefect server, and has a database for one: a fresh one takes ten seconds."""
    folder = make_project(STAGE)
    (folder / "seconds").write_text("0")
    for name in ("prefect.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".prefect").mkdir()
    with closing(sqlite3.connect(prefect_server.database)) as ready, closing(prefect_database(folder)) as copy:
        ready.backup(copy)
    monkeypatch.delenv("PREFECT_API_URL")
    return folder


def test_what_prefects_server_keeps_is_for_one_user(prefect_server: PrefectServer):
    home = prefect_server.database.parent
    files = [path for path in home.rglob("*") if path.is_file()]
    assert prefect_server.database in files
    assert [path for path in [home, *files] if path.stat().st_mode & 0o077] == []


def prefect_database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / ".prefect" / "prefect.db")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_up(*arguments: str) -> subprocess.Popen[str]:
    """Returns when `up` says that everything is up."""
    up = start("-m", "lectern", "up", *arguments)
    said = []
    while "Ctrl-C" not in "".join(said):
        said.append(up.stdout.readline())
        assert said[-1], "".join(said)
    return up


def served(port: int) -> set[str]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api") as client:
        flows = {flow["id"]: flow["name"] for flow in client.post("/flows/filter", json={}).json()}
        found = client.post("/deployments/filter", json={}).json()
    return {f"{flows[deployment['flow_id']]}/{deployment['name']}" for deployment in found}


def runs(folder: Path) -> int:
    note = folder / "runs.txt"
    return note.read_text().count("x") if note.exists() else 0


def test_a_run_starts_a_server_that_keeps_its_history_and_leaves_nothing_running(folder: Path):
    output, _ = (run := start("-m", "lectern", "run")).communicate(timeout=120)
    assert run.returncode == 0, output
    with closing(prefect_database(folder)) as database:
        assert database.execute("SELECT state_name FROM task_run WHERE name = 'work'").fetchall() == [("Completed",)]
    assert processes_in(folder) == []


def test_a_run_that_is_told_to_stop_leaves_nothing_running(folder: Path):
    (folder / "seconds").write_text("300")
    run = start("-m", "lectern", "run")
    wait_for(lambda: runs(folder))
    run.terminate()
    run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
    assert processes_in(folder) == []


def test_a_run_that_is_killed_leaves_nothing_running(folder: Path):
    (folder / "seconds").write_text("300")
    run = start("-m", "lectern", "run")
    wait_for(lambda: runs(folder))
    run.kill()
    run.communicate(timeout=60)
    wait_for(lambda: processes_in(folder) == [])


def test_a_run_whose_configured_server_is_away_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    output, _ = (run := start("-m", "lectern", "run")).communicate(timeout=60)
    assert run.returncode == 2
    assert "unset PREFECT_API_URL" in output
    assert "Traceback" not in output


@pytest.fixture
def port(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Where the project of two stages is told that a Prefect server listens."""
    (folder / "dvc.yaml").write_text(TWO_STAGES)
    port = free_port()
    monkeypatch.setenv("PREFECT_API_URL", api_url(port))
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")  # or its client tries for a minute before it gives up
    return port


@contextmanager
def team_server(port: int) -> Iterator[None]:
    with prefect_service(port) as server:
        server.wait_until_healthy()
        yield


def ran(folder: Path) -> list[str]:
    note = folder / "ran.txt"
    return note.read_text().split() if note.exists() else []


def test_while_the_server_is_away_a_stage_waits_for_its_slot_and_then_runs(folder: Path, port: int):
    with team_server(port):
        run = start("-m", "lectern", "run")
        wait_for(lambda: ran(folder))
    (folder / "go").touch()
    said = []
    while "does not answer" not in "".join(said):
        said.append(run.stdout.readline())
        assert said[-1], "".join(said)
    assert ran(folder) == ["one"]
    with team_server(port):
        output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert ran(folder) == ["one", "two"]
    with closing(prefect_database(folder)) as database:
        assert database.execute("SELECT state_name FROM flow_run").fetchall() == [("Completed",)]


def test_a_run_whose_server_is_gone_does_its_stages_and_says_what_prefect_was_not_told(folder: Path, port: int):
    (folder / "dvc.yaml").write_text(TWO_STAGES.replace("        meta: {slot: gpu}\n", ""))
    with team_server(port):
        run = start("-m", "lectern", "run")
        wait_for(lambda: ran(folder))
    (folder / "go").touch()
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 75, output
    assert "it stays Running there" in output
    assert "Traceback" not in output
    assert ran(folder) == ["one", "two"]
    assert "up to date" in dvc("repro")


def test_the_schedule_starts_runs_by_itself(
    folder: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    monkeypatch.setenv("PREFECT_RUNNER_POLL_FREQUENCY", "1")
    (folder / "prefect.yaml").write_text(EVERY_FIVE_SECONDS)
    server = start("-m", "flows.services.deployments")
    wait_for(lambda: runs(folder))
    server.terminate()
    server.communicate(timeout=60)


def test_up_serves_until_ctrl_c_and_leaves_nothing_running(folder: Path):
    prefect, mlflow, reports, page = (free_port() for _ in range(4))
    (folder / "reports").mkdir()
    (folder / "reports" / "report.html").write_text("the report")
    ports = {"prefect": prefect, "mlflow": mlflow, "reports": reports, "page": page}
    up = start_up(*(word for name, port in ports.items() for word in (f"--{name}-port", str(port))))
    for address in (f"{prefect}/api/health", f"{mlflow}/health", f"{reports}/report.html", f"{page}/page/"):
        with urllib.request.urlopen(f"http://127.0.0.1:{address}", timeout=10) as reply:
            assert reply.status == 200
    with urllib.request.urlopen(f"http://127.0.0.1:{prefect}/ui-settings", timeout=10) as reply:
        assert json.load(reply)["api_url"] == "/api"  # or its pages ask another host name or port
    wait_for(lambda: served(prefect) >= {deployment.full_name for deployment in read_deployments()})
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=60)
    assert up.returncode == 0
    assert processes_in(folder) == []


@pytest.mark.hard
def test_up_ends_with_a_message_when_one_of_its_servers_dies(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.invalid")
    ports = [word for name in ("prefect", "reports", "page") for word in (f"--{name}-port", str(free_port()))]
    up = start_up(*ports)
    for process in psutil.Process(up.pid).children(recursive=True):
        if process.cmdline()[1:4] == ["-m", "flows.services.web_apps", "prefect"]:
            process.kill()
    output, _ = up.communicate(timeout=60)
    assert up.returncode == 1
    assert "The Prefect server ended" in output
    assert processes_in(folder) == []


def test_up_on_a_taken_port_says_which_and_how_to_choose_another(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ("--reports-port", str(free_port()), "--page-port", str(free_port()), "--mlflow-port", str(port))
        output, _ = (up := start("-m", "lectern", "up", *words)).communicate(timeout=60)
    assert up.returncode == 2
    assert output == f"Port {port} is taken. Choose another one with --mlflow-port.\n"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("cron: every night", "cron: 0 2 * * *"), ("timezone: Atlantis", "timezone: UTC"), ("limit: some", "limit: 1")],
)
def test_what_is_wrong_in_prefect_yaml_is_named(folder: Path, wrong: str, right: str):
    text = (folder / "prefect.yaml").read_text()
    assert right in text
    (folder / "prefect.yaml").write_text(text.replace(right, wrong))
    with pytest.raises(UsageError, match=r"prefect\.yaml is wrong"):
        read_deployments()


def test_up_starts_nothing_when_prefect_yaml_is_wrong(folder: Path):
    (folder / "prefect.yaml").write_text("deployments: none")
    output, _ = (up := start("-m", "lectern", "up")).communicate(timeout=60)
    assert up.returncode == 2
    assert "prefect.yaml is wrong" in output
    assert "Traceback" not in output


def test_prefect_deploys_all_with_schedules_and_forms(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for words in (["work-pool", "create", "lectern", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        for expected in read_deployments(ROOT / "prefect.yaml"):
            deployment = client.read_deployment_by_name(expected.full_name)
            assert deployment.work_pool_name == "lectern"
            assert [kept.schedule.cron for kept in deployment.schedules] == (
                [expected.schedule.cron] if expected.schedule else []
            )
            assert (
                deployment.parameter_openapi_schema["properties"].keys() == expected.flow.parameters.properties.keys()
            )
            assert deployment.pull_steps[0]["prefect.deployments.steps.set_working_directory"]["directory"] == str(ROOT)
