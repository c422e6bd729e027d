"""Events that Lectern sends to Prefect, so that automations can react: a new champion, and drift."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prefect.events import emit_event

from flows.services.prefect_server import configured_url, report_to, require_answer, url_of_up
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.monitoring.drift import Drift
    from pipeline.registry.promotion import Move

PROMOTED = "lectern.promoted"
DRIFTED = "lectern.drifted"


def announce(name: str, move: Move) -> None:
    """Emit, from a flow run, the event that the registered model `name` has a new champion."""
    _emit(PROMOTED, name, asdict(move))


def announce_drift(name: str, drift: Drift) -> None:
    """Emit, from a flow run, the event that the titled texts differ from the training split."""
    _emit(DRIFTED, name, drift.as_json())


def tell_of_promotion(name: str, move: Move) -> None:
    """Emit the event of a new champion to the configured Prefect server or that of `lectern up`, if there is one."""
    if _server_answers():
        announce(name, move)


def tell_of_drift(name: str, drift: Drift) -> None:
    """Emit the event of drift to the configured Prefect server or that of `lectern up`, if there is one."""
    if _server_answers():
        announce_drift(name, drift)


def _server_answers() -> bool:
    """Return whether there is a Prefect server to tell; warn if the configured one does not answer."""
    if not configured_url():
        url = url_of_up()
        if url is None:
            return False
        report_to(url)
    try:
        require_answer()
    except UsageError as error:
        print(f"Prefect was not told, so what depends on the event does not start. {error}", file=sys.stderr)
        return False
    return True


def _emit(event: str, name: str, payload: dict[str, Any]) -> None:
    resource = {"prefect.resource.id": f"lectern.model.{name}", "prefect.resource.name": name}
    emit_event(event, resource=resource, payload={"model": name, **payload})
