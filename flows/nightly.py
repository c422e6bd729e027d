"""Serves the flow as the deployment `train/nightly`: waits for its schedule, or for a click, and runs it here."""

from __future__ import annotations

import sys

from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.train import train


def serve(schedule: Schedule) -> None:
    """Runs the flow in the working directory whenever `schedule` says so, one run at a time, until it is stopped."""
    train.serve("nightly", schedule=schedule, limit=1, entrypoint_type=EntrypointType.MODULE_PATH)


if __name__ == "__main__":
    cron, timezone = sys.argv[1:]
    serve(Cron(cron, timezone=timezone))
