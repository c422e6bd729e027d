"""Prefect events for automations: a new champion, and drift of the titled texts."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prefect.events import emit_event

from flows.services.prefect_server import configured_url, require_server, url_of_lectern_up, use_server
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.monitoring.drift import Drift
    from pipeline.registry.promotion import Move

PROMOTED = "lectern.promoted"
DRIFTED = "lectern.drifted"


def emit_promotion(name: str, move: Move) -> None:
    """Emit the event that the registered model `name` has a new champion; for flow runs."""
    _emit(PROMOTED, name, asdict(move))


def emit_drift(name: str, drift: Drift) -> None:
    """Emit the event that the titled texts differ from the training split; for flow runs."""
    _emit(DRIFTED, name, drift.as_json())


def report_promotion(name: str, move: Move) -> None:
    """Emit the event of a new champion to the configured Prefect server or that of `lectern up`, if there is one."""
    if _find_server():
        emit_promotion(name, move)


def report_drift(name: str, drift: Drift) -> None:
    """Emit the event of drift to the configured Prefect server or that of `lectern up`, if there is one."""
    if _find_server():
        emit_drift(name, drift)


def _find_server() -> bool:
    """Return whether a Prefect server can take events; warn if the configured one does not answer."""
    if not configured_url():
        url = url_of_lectern_up()
        if url is None:
            return False
        use_server(url)
    try:
        require_server()
    except UsageError as error:
        print(f"The event did not reach Prefect, so no automation starts. {error}", file=sys.stderr)
        return False
    return True


def _emit(event: str, name: str, payload: dict[str, Any]) -> None:
    resource = {"prefect.resource.id": f"lectern.model.{name}", "prefect.resource.name": name}
    emit_event(event, resource=resource, payload={"model": name, **payload})
