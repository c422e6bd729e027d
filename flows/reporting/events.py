"""What Lectern tells Prefect of, so that automations can go on from there: a new champion, and drift."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prefect.events import emit_event

from flows.services.prefect_server import configured_url, report_to, require_answer, url_of_up
from pipeline.errors import Misused

if TYPE_CHECKING:
    from pipeline.monitoring.drift import Drift
    from pipeline.registry.versions import Move

PROMOTED = "lectern.promoted"
DRIFTED = "lectern.drifted"


def announce(name: str, move: Move) -> None:
    """Emits the event that the champion of the registered model `name` is another one, by promotion or by rollback."""
    _emit(PROMOTED, name, asdict(move))


def announce_drift(name: str, drift: Drift) -> None:
    """Emits the event that what the registered model `name` is given, or gives, is not what it was trained on."""
    _emit(DRIFTED, name, drift.as_json())


def _emit(event: str, name: str, payload: dict[str, Any]) -> None:
    resource = {"prefect.resource.id": f"lectern.model.{name}", "prefect.resource.name": name}
    emit_event(event, resource=resource, payload={"model": name, **payload})


def main(event: str, name: str, payload: str) -> int:
    """Announces to the configured Prefect server, or to that of `lectern up`; where there is neither, to nobody.

    Exit code 0; 2: the server does not answer.
    """
    if not configured_url():
        url = url_of_up()
        if url is None:
            return 0
        report_to(url)
    try:
        require_answer()
    except Misused as error:
        print(f"Prefect was not told, so what follows there does not start. {error}", file=sys.stderr)
        return 2
    _emit(event, name, json.loads(payload))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
