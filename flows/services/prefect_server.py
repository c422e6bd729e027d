"""The Prefect server that flows report to: the configured one, the one of `lectern up`, or a temporary one.

Prefect's ephemeral server is never used, because it loses task runs when it ends.
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

from flows.services.service import HOST, Service, free_port, is_healthy
from pipeline.errors import UsageError
from pipeline.files import make_private_folder
from pipeline.paths import STATE

URL_FILE = STATE / "prefect.url"
"""File in which `lectern up` keeps the address of its Prefect server."""


def prefect_service(port: int) -> Service:
    """Start a Prefect server for the project in the working directory.

    Its database is in `.prefect/`, unless the environment names another database.
    """
    make_private_folder(Path(".prefect"))  # the database holds the secrets of blocks, such as a webhook's address
    return Service(
        "The Prefect server",
        [sys.executable, "-m", "flows.services.web_apps", "prefect", "--port", str(port)],
        log=STATE / "logs" / "prefect.log",
        health=f"{api_url(port)}/health",
        env={"PREFECT_HOME": str(Path(".prefect").resolve())},
        private=True,
    )


def api_url(port: int) -> str:
    """Return the address of the API of a Prefect server on this machine."""
    return f"http://{HOST}:{port}/api"


def configured_url() -> str | None:
    """Return `PREFECT_API_URL` from the environment, the profile or `prefect.toml`."""
    return get_current_settings().api.url


def has_external_database() -> bool:
    """Return whether the environment names a database, which our server then uses instead of `.prefect/`."""
    return any(f"PREFECT_{which}_DATABASE_CONNECTION_URL" in os.environ for which in ("API", "SERVER"))


def use_server(url: str) -> None:
    """Use the Prefect server at `url` in this process and in its children."""
    os.environ["PREFECT_API_URL"] = url
    refresh_global_settings_context()


def require_server() -> None:
    """Check that the configured Prefect server answers.

    Raises:
        UsageError: the configured server does not answer.
    """
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise UsageError(
                f"No Prefect server answers at {configured_url()} ({error}). "
                "Start it, or unset PREFECT_API_URL to use a server on this machine."
            )


def is_unavailable(error: BaseException | None) -> bool:
    """Return whether Prefect's client raised `error` because its server does not answer, or is not ready yet."""
    if isinstance(error, ConcurrencySlotAcquisitionError):
        error = error.__cause__  # None if the slot does not exist
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error
    return isinstance(error, httpx.TransportError)


@contextmanager
def warn_if_not_stored(what: str) -> Iterator[None]:
    """Turn a failure of Prefect's server into a warning, for details that a run's page may lack."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("Prefect's server did not store %s. %s", what, error)


@contextmanager
def server_for_run() -> Iterator[None]:
    """Provide a Prefect server during the block; start and stop a temporary one if none runs.

    Raises:
        UsageError: the configured server does not answer.
        ServiceDied: the temporary server did not start.
    """
    if configured_url():
        require_server()
        yield
    elif url := url_of_lectern_up():
        use_server(url)
        yield
    else:
        port = free_port()
        with prefect_service(port) as server:
            print("Starting a Prefect server for this run ...", flush=True)
            server.wait_until_healthy()
            use_server(api_url(port))
            try:
                yield
            finally:
                # Log records that are still queued would be retried long after the server has stopped.
                APILogHandler().flush()


def url_of_lectern_up() -> str | None:
    """Return the address of the server that `lectern up` runs in this work tree, if it answers."""
    if not URL_FILE.exists():
        return None
    url = URL_FILE.read_text(encoding="utf-8").strip()
    return url if is_healthy(f"{url}/health") else None
