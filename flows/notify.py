"""Tells somebody of a flow run that failed, by the notification block that `LECTERN_NOTIFY` names."""

from __future__ import annotations

import logging
import os

from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.settings import get_current_settings

BLOCK = "LECTERN_NOTIFY"
"""Such as `slack-webhook/lectern`: the type of the block, and its name. Nobody is told without it."""

log = logging.getLogger("prefect.flow_runs")


def tell(flow: Flow, run: FlowRun, state: State) -> None:
    """A hook for a flow's failures. What goes wrong with it is logged, and harms nothing else."""
    name = os.environ.get(BLOCK)
    if not name:
        return
    pages = get_current_settings().ui_url
    where = f"\n{pages}/runs/flow-run/{run.id}" if pages else ""
    try:
        Block.load(name).notify(f"{state.message}{where}", subject=f"{flow.name} {run.name}: {state.name}")
    except Exception as error:  # whatever channel it is: the run has failed already, and says so itself
        log.warning("Nobody was told of the failure, %s=%s does not work: %s", BLOCK, name, error)
