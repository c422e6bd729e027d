"""`lectern up`: run the servers of MLflow and Prefect, the page, the reports and a worker until Ctrl-C."""

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
from flows.reporting.notifications import block_problem
from flows.services.deployments import deploy, worker_service
from flows.services.prefect_server import (
    URL_FILE,
    api_url,
    configured_url,
    prefect_service,
    require_server,
    use_server,
)
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
"""Entry of pyproject.toml by which MLflow finds `flows.services.web_apps.mlflow`."""


class Interrupted(Exception):
    """The user pressed Ctrl-C, or the process got SIGTERM."""


@dataclass(frozen=True)
class Server:
    """Address of a server, and how to start it; a configured server is already running."""

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
        The exit code: 0 if the user stopped the servers, 1 if one died.

    Raises:
        UsageError: a port is taken, the servers run already, the configured Prefect server does not answer, or
            prefect.yaml is wrong.
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
    """Raise `Interrupted`, and ignore later signals so that the servers stop in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted


@contextmanager
def only_one_here() -> Iterator[None]:
    """Hold this work tree's lock during the block.

    Raises:
        UsageError: the servers of this work tree are already running.
    """
    make_folder(STATE)
    lock = FileLock(STATE / "up.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError("`lectern up` already runs in this folder. Stop it first.") from None
    try:
        yield
    finally:
        lock.release()


def run(ports: Ports) -> None:
    """Start all services, print their addresses, and watch them; stop all when one dies or the user interrupts.

    Raises:
        UsageError: a port is taken, the configured Prefect server does not answer, or prefect.yaml is wrong.
        ServiceDied: a service did not start, or ended by itself.
        Interrupted: the user stopped it.
    """
    require_free(ports.reports, "--reports-port")
    require_free(ports.page, "--page-port")
    mlflow = mlflow_server(ports.mlflow)
    prefect = prefect_server(ports.prefect)
    with ExitStack() as stack:
        print("Starting ...", flush=True)
        # Trainings take this lock too: two processes that create the database at once break it.
        with FileLock(STATE / "mlflow.lock"):
            if mlflow.start:
                create_database(os.environ["MLFLOW_TRACKING_URI"])
            services = [stack.enter_context(server.start()) for server in (mlflow, prefect) if server.start]
            for service in services:
                service.wait_until_healthy()
        stack.enter_context(address_file(MLFLOW_URL_FILE, mlflow.address))
        stack.enter_context(address_file(URL_FILE, prefect.address))
        services.append(stack.enter_context(reports_service(ports.reports)))
        stack.enter_context(address_file(REPORTS_URL_FILE, f"http://{HOST}:{ports.reports}"))
        page = stack.enter_context(page_service(ports.page))
        use_server(prefect.address)
        deployments = deploy()
        worker = stack.enter_context(worker_service())
        page.wait_until_healthy()
        services += [page, worker]
        print(f"Prefect   {prefect.address.removesuffix('/api')}")
        print(f"MLflow    {mlflow.address}")
        print(f"Reports   http://{HOST}:{ports.reports}")
        print(f"Page      {page_address(ports.page)}")
        print("Deployed from prefect.yaml:")
        for deployment in deployments:
            print(f"  {deployment.name:<16} {deployment.schedule}")
        if problem := block_problem():
            print(f"Warning: {problem}")
        print("Ctrl-C stops everything.", flush=True)
        while True:
            for service in services:
                service.check()
            time.sleep(1)


def mlflow_server(port: int) -> Server:
    """Return the server at the http address in `MLFLOW_TRACKING_URI`, or our own server for the database it names.

    Raises:
        UsageError: `port` is taken, or a shared database has no place for artifacts configured, or Lectern's
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
    # Processes that use the database without this server find the artifacts at the same addresses.
    root = artifact_root(uri)
    assert root  # only a server has none
    command += ["--no-serve-artifacts", "--default-artifact-root", root]
    return Server(
        own,
        start=lambda: Service(
            "The MLflow server",
            command,
            log=STATE / "logs" / "mlflow.log",
            health=f"{own}/health",
            env={
                "MLFLOW_BACKEND_STORE_URI": uri,  # every user of this machine can list the arguments
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes that Lectern does not need
            },
        ),
    )


def allow_configured_hosts() -> list[str]:
    """Return options for MLflow: its own check follows Lectern's, and does not know the configured host names."""
    names = configured_hosts()
    if not names:
        return []
    hosts = [f"{name}{port}" for name in ("127.0.0.1", "localhost", *names) for port in ("", ":*")]
    origins = [f"{scheme}://{name}{port}" for scheme in ("http", "https") for name in names for port in ("", ":*")]
    return ["--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(origins)]


def prefect_server(port: int) -> Server:
    """Return the configured server, or our own on `port`.

    Raises:
        UsageError: `port` is taken, or the configured server does not answer.
    """
    own, configured = api_url(port), configured_url()
    # Prefect advises to configure the address of a local server, which then still has to be started.
    if configured and configured != own:
        require_server()
        return Server(configured, start=None)
    require_free(port, "--prefect-port")
    return Server(own, start=lambda: prefect_service(port))


def reports_service(port: int) -> Service:
    """Start the server of the folder `reports`."""
    Path("reports").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "flows.services.web_apps", "reports", "--port", str(port)]
    return Service("The reports server", command, log=STATE / "logs" / "reports.log")


def page_service(port: int) -> Service:
    """Start the server of the page for transcripts."""
    command = [sys.executable, "-m", "lectern", "serve", "--host", HOST, "--port", str(port)]
    return Service("The page server", command, log=STATE / "logs" / "page.log", health=page_address(port))


def page_address(port: int) -> str:
    """Return the address of the page."""
    return f"http://{HOST}:{port}{PAGE_PATH}/"


@contextmanager
def address_file(file: Path, address: str) -> Iterator[None]:
    """Keep the address of a server in `file` during the block; it may hold a password."""
    write_text(file, address, durable=False, private=True)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
