"""Tells somebody what needs a person, by the notification block of Prefect that `LECTERN_NOTIFY` names."""

from __future__ import annotations

import logging
import os

import prefect.blocks.notifications  # noqa: F401 - a block is loaded as what it is only where its kind is known
from prefect import Flow
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

from pipeline.redaction import hide_passwords

VARIABLE = "LECTERN_NOTIFY"
"""Names the block, such as `slack-webhook/operators`."""

LONGEST = 2000
"""Characters of a run's message that are sent: a channel that takes fewer than a run says would refuse them all."""


def tell(flow: Flow, flow_run: FlowRun, state: State) -> None:
    """A flow's hook for runs that failed or crashed."""
    subject = f"{flow.name}, {flow_run.name}: {state.name}"
    send(subject, state.message or "", flow_run, flow_run_logger(flow_run, flow))


def send(subject: str, body: str, flow_run: FlowRun, logger: logging.Logger | logging.LoggerAdapter) -> None:
    """Sends the beginning of `body` and the way to `flow_run`; to nobody where no block is named.

    A block that does not work is logged. The run is none the worse for it.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return
    try:
        block = load(name)
    except Exception as error:  # whatever is wrong with the name, the block or the server
        logger.error("%s=%s: nobody was told. %s", VARIABLE, name, str(error).partition("\n")[0])
        return
    told = hide_passwords(body)
    if len(told) > LONGEST:
        told = f"{told[:LONGEST]} …"
    try:
        block.notify("\n".join([told, url_for(flow_run) or f"Flow run {flow_run.id}"]), subject)
    except Exception as error:
        # Not its words: they name the address, and whoever has that of a webhook may write to it.
        logger.error("%s=%s: nobody was told. %s", VARIABLE, name, type(error).__name__)


def load(name: str) -> NotificationBlock:
    """
    Raises:
        ValueError: there is no such block, or it notifies nobody.
    """
    block = Block.load(name)
    if not isinstance(block, NotificationBlock):
        raise ValueError(f"It is a {type(block).__name__}, which notifies nobody.")
    return block
