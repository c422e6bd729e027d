"""Which Prefect server a flow reports to: the configured one, the one of `lectern up`, or one of its own for a while.

Never Prefect's ephemeral server: it forgets task runs when it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect import get_client, get_run_logger
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.context import refresh_global_settings_context
from prefect.logging.handlers import APILogHandler
from prefect.settings import get_current_settings

from flows.services.service import HOST, Service, answers, free_port
from pipeline.errors import UsageError
from pipeline.files import make_private_folder
from pipeline.paths import STATE

URL_FILE = STATE / "prefect.url"
"""Where `lectern up` says how its Prefect server is reached."""


def prefect_service(port: int) -> Service:
    """A Prefect server for the project in the working directory.

    Its database is kept in `.prefect/` between runs, where the environment names no other.
    """
    make_private_folder(Path(".prefect"))  # where Prefect keeps what its blocks hold, such as the address of a webhook
    return Service(
        "The Prefect server",
        [sys.executable, "-m", "flows.services.web_apps", "prefect", "--port", str(port)],
        log=STATE / "logs" / "prefect.log",
        health=f"{api_url(port)}/health",
        env={"PREFECT_HOME": str(Path(".prefect").resolve())},
        private=True,
    )


def api_url(port: int) -> str:
    return f"http://{HOST}:{port}/api"


def configured_url() -> str | None:
    """What `PREFECT_API_URL` says, in the environment, the profile or `prefect.toml`."""
    return get_current_settings().api.url


def database_is_elsewhere() -> bool:
    """Whether the environment names a database, which a server of ours then uses in place of `.prefect/`'s."""
    return any(f"PREFECT_{which}_DATABASE_CONNECTION_URL" in os.environ for which in ("API", "SERVER"))


def report_to(url: str) -> None:
    """Makes the Prefect server at `url` ours, and that of the processes that we start."""
    os.environ["PREFECT_API_URL"] = url
    refresh_global_settings_context()


def require_answer() -> None:
    """
    Raises:
        UsageError: the configured server does not answer.
    """
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise UsageError(
                f"No Prefect server answers at {configured_url()} ({error}). "
                "Start it, or unset PREFECT_API_URL to do without it."
            )


def is_away(error: BaseException | None) -> bool:
    """Whether that is what Prefect's client says where the server is gone, or not yet ready."""
    if isinstance(error, ConcurrencySlotAcquisitionError):
        error = error.__cause__  # it is none where there is no such slot
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error
    return isinstance(error, httpx.TransportError)


@contextmanager
def at_best(what: str) -> Iterator[None]:
    """For what of a run may be lacking in Prefect's pages: a warning says so where its server does not take it."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("Prefect's server did not take %s. %s", what, error)


@contextmanager
def a_server() -> Iterator[None]:
    """A healthy Prefect server for the block; if it had to be started, it is stopped after it.

    Raises:
        UsageError: the configured server does not answer.
        ServiceDied: ours did not start.
    """
    if configured_url():
        require_answer()
        yield
    elif url := url_of_up():
        report_to(url)
        yield
    else:
        port = free_port()
        with prefect_service(port) as server:
            print("Starting a Prefect server for this run ...", flush=True)
            server.wait_until_healthy()
            report_to(api_url(port))
            try:
                yield
            finally:
                # What is still on its way would look for the server until long after it is gone.
                APILogHandler().flush()


def url_of_up() -> str | None:
    """The address of the server that `lectern up` runs in this work tree, if it does and answers."""
    if not URL_FILE.exists():
        return None
    url = URL_FILE.read_text(encoding="utf-8").strip()
    return url if answers(f"{url}/health") else None
