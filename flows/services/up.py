"""All that an operator watches, until Ctrl-C: the servers of MLflow and Prefect, the page, the reports, and the flows,
served."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from flows.reporting.artifacts import MLFLOW_URL_FILE, REPORTS_URL_FILE
from flows.services.deployments import PREFECT_YAML, read_deployments
from flows.services.prefect_server import URL_FILE, api_url, configured_url, prefect_service, require_answer
from flows.services.service import HOST, Service, ServiceDied, require_free
from pipeline.errors import UsageError
from pipeline.files import make_folder, write_text
from pipeline.paths import STATE
from pipeline.redaction import without_user
from pipeline.registry.tracking_store import artifact_root, create_database
from pipeline.server.same_origin import configured_hosts
from pipeline.server.settings import PAGE_PATH
from pipeline.terminal import complain

MLFLOW_APP = "lectern"
"""Name by which MLflow finds `flows.services.web_apps.mlflow` in pyproject.toml."""


class Interrupted(Exception):
    """Ctrl-C, or SIGTERM."""


@dataclass(frozen=True)
class Server:
    """Where a server is reached, and how to start it; there is nothing to start where it is somebody else's."""

    address: str
    start: Callable[[], Service] | None


@dataclass(frozen=True)
class Ports:
    """Ports of the servers on this machine."""

    prefect: int
    mlflow: int
    reports: int
    page: int


def up(ports: Ports) -> int:
    """Start all servers and watch them until Ctrl-C or SIGTERM.

    Returns:
        0 if it was stopped; 1 if a server died.

    Raises:
        UsageError: a port is taken, the servers run already, or the configured Prefect server does not answer.
    """
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with only_one_here():
            run(ports)
    except ServiceDied as error:
        complain(f"{error}\nEverything else was stopped.")
        return 1
    except Interrupted:
        print("Stopped.")
    return 0


def interrupt(_number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C shall not break off the stopping.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted


@contextmanager
def only_one_here() -> Iterator[None]:
    """
    Raises:
        UsageError: the servers of this work tree are up already.
    """
    make_folder(STATE)
    lock = FileLock(STATE / "up.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError("The servers of this work tree are up already.") from None
    try:
        yield
    finally:
        lock.release()


def run(ports: Ports) -> None:
    """Starts all, says where, and watches until one dies or we are interrupted; then stops all.

    Raises:
        UsageError: a port is taken, or the configured Prefect server does not answer.
        ServiceDied: a server did not start, or ended by itself.
        Interrupted: we are to stop.
    """
    deployments = read_deployments()
    require_free(ports.reports, "--reports-port")
    require_free(ports.page, "--page-port")
    mlflow = mlflow_server(ports.mlflow)
    prefect = prefect_server(ports.prefect)
    with ExitStack() as stack:
        print("Starting ...", flush=True)
        # The trainings take this lock too: two processes that meet on a fresh database break it.
        with FileLock(STATE / "mlflow.lock"):
            if mlflow.start:
                create_database(os.environ["MLFLOW_TRACKING_URI"])
            services = [stack.enter_context(server.start()) for server in (mlflow, prefect) if server.start]
            for service in services:
                service.wait_until_healthy()
        stack.enter_context(word_left(MLFLOW_URL_FILE, mlflow.address))
        stack.enter_context(word_left(URL_FILE, prefect.address))
        services.append(stack.enter_context(reports_service(ports.reports)))
        stack.enter_context(word_left(REPORTS_URL_FILE, f"http://{HOST}:{ports.reports}"))
        services.append(stack.enter_context(flows_service(prefect.address)))
        services.append(stack.enter_context(page_service(ports.page)))
        services[-1].wait_until_healthy()
        print(f"Prefect   {prefect.address.removesuffix('/api')}")
        print(f"MLflow    {mlflow.address}")
        print(f"Reports   http://{HOST}:{ports.reports}")
        print(f"Page      {page_address(ports.page)}")
        print(f"Served, as {PREFECT_YAML} says:")
        for deployment in deployments:
            print(f"  {deployment.full_name:<16} {deployment.when}")
        print("Ctrl-C stops everything.", flush=True)
        while True:
            for service in services:
                service.check()
            time.sleep(1)


def mlflow_server(port: int) -> Server:
    """The one that `MLFLOW_TRACKING_URI` names by an http address, or else ours on `port` over the database it names.

    Raises:
        UsageError: `port` is taken; or others may share that database, and nobody says where artifacts go; or Lectern's
            installation is older than its code.
    """
    own = f"http://{HOST}:{port}"
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri.startswith(("http://", "https://")):
        return Server(without_user(uri), start=None)
    require_free(port, "--mlflow-port")
    if not entry_points(group="mlflow.app", name=MLFLOW_APP):
        raise UsageError(
            f"MLflow does not find the application {MLFLOW_APP!r}: Lectern's installation is older than its code. "
            "Run `make install`."
        )
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--app-name", MLFLOW_APP, *allow_configured_hosts()]
    # Whoever reaches the database directly finds artifacts at the same places, without the server between.
    command += ["--no-serve-artifacts", "--default-artifact-root", artifact_root(uri)]
    return Server(
        own,
        start=lambda: Service(
            "The MLflow server",
            command,
            log=STATE / "logs" / "mlflow.log",
            health=f"{own}/health",
            env={
                "MLFLOW_BACKEND_STORE_URI": uri,  # not among the command's words, which everyone here can list
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes for what Lectern does not use
            },
        ),
    )


def allow_configured_hosts() -> list[str]:
    """Options for MLflow, whose own check comes after Lectern's and knows none of the configured host names."""
    names = configured_hosts()
    if not names:
        return []
    hosts = [f"{name}{port}" for name in ("127.0.0.1", "localhost", *names) for port in ("", ":*")]
    origins = [f"{scheme}://{name}{port}" for scheme in ("http", "https") for name in names for port in ("", ":*")]
    return ["--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(origins)]


def prefect_server(port: int) -> Server:
    """The configured one, or else ours on `port`.

    Raises:
        UsageError: `port` is taken, or the configured server does not answer.
    """
    own, configured = api_url(port), configured_url()
    # Prefect tells everyone to configure the address of their own server: then there is still one to start.
    if configured and configured != own:
        require_answer()
        return Server(configured, start=None)
    require_free(port, "--prefect-port")
    return Server(own, start=lambda: prefect_service(port))


def reports_service(port: int) -> Service:
    Path("reports").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "flows.services.web_apps", "reports", "--port", str(port)]
    return Service("The server of reports", command, log=STATE / "logs" / "reports.log")


def page_service(port: int) -> Service:
    command = [sys.executable, "-m", "lectern", "serve", "--host", HOST, "--port", str(port)]
    return Service("The server of the page", command, log=STATE / "logs" / "page.log", health=page_address(port))


def page_address(port: int) -> str:
    return f"http://{HOST}:{port}{PAGE_PATH}/"


def flows_service(prefect: str) -> Service:
    return Service(
        "What serves the flows",
        [sys.executable, "-m", "flows.services.deployments"],
        log=STATE / "logs" / "flows.log",
        env={"PREFECT_API_URL": prefect},
    )


@contextmanager
def word_left(file: Path, address: str) -> Iterator[None]:
    """While the block runs, `file` says where a server is reached, which may be an address with a password."""
    write_text(file, address, durable=False, private=True)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
