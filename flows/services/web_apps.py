"""Serve Prefect, MLflow or the reports to their own pages and to programs, and refuse pages of other sites."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp

from flows.services.service import HOST
from pipeline.errors import UsageError
from pipeline.server.same_origin import FRAMES, OriginCheck, SameOrigin
from pipeline.terminal import report_error

EXAMPLE = "Example: python -m flows.services.web_apps prefect --host 0.0.0.0 --port 4200"


def prefect(host: str, port: int) -> None:
    """Run Prefect's server with all its services, as `prefect server start` does."""
    os.environ["PREFECT_SERVER_UI_API_URL"] = "/api"  # relative to the address at which the page was opened
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = f"http://{host}:{port}"  # the default is every origin
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    uvicorn.run(
        SameOrigin(create_app(final=True), check=OriginCheck.listening_on(host)),
        host=host,
        port=port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


def mlflow() -> ASGIApp:
    """Return the application for `mlflow server --app-name lectern`, which finds it by its entry in pyproject.toml.

    MLflow's own check accepts pages from every port of this machine.
    """
    from mlflow.server.fastapi_app import app

    return SameOrigin(app, check=OriginCheck.listening_on(HOST))


def reports(host: str, port: int) -> None:
    """Serve the folder of reports, with a listing."""
    check = OriginCheck.listening_on(host)

    class Handler(SimpleHTTPRequestHandler):
        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            refusal = check.refusal(self.command, Headers(dict(self.headers)))
            if refusal:
                self.send_error(refusal.status, explain=refusal.why)
            return refusal is None

        def end_headers(self) -> None:
            self.send_header(*FRAMES)
            super().end_headers()

    with ThreadingHTTPServer((host, port), partial(Handler, directory="reports")) as server:
        server.serve_forever()


SERVERS: dict[str, Callable[[str, int], None]] = {"prefect": prefect, "reports": reports}


def main() -> int:
    """Run the server that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m flows.services.web_apps", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--host", default=HOST, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    try:
        SERVERS[given.server](given.host, given.port)
    except UsageError as error:
        return report_error(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
