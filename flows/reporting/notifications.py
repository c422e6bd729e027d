"""Notify operators through the Prefect notification block that `LECTERN_NOTIFY` names."""

from __future__ import annotations

import logging
import os
from typing import Any

import prefect.blocks.notifications  # noqa: F401 - registers the block types, without which no block can be loaded
from prefect import Flow
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

from pipeline.redaction import hide_passwords

VARIABLE = "LECTERN_NOTIFY"
"""Environment variable with the name of the block, such as `slack-webhook/operators`."""

LONGEST = 2000
"""Characters of a run's message that are sent: a channel with a lower limit would refuse the whole notification."""


def notify_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    """Notify operators of a failed or crashed run; a hook for flows."""
    subject = f"{flow.name}, {flow_run.name}: {state.name}"
    notify(subject, state.message or "", flow_run, flow_run_logger(flow_run, flow))


def notify(subject: str, body: str, flow_run: FlowRun, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    """Send the beginning of `body` and a link to `flow_run`, if a block is configured.

    A block that does not work is logged, and does not change the run.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return
    try:
        block = _load(name)
    except Exception as error:  # a wrong name, a wrong block or a failing server
        logger.error("%s=%s: no notification was sent. %s", VARIABLE, name, _first_line(error))
        return
    text = hide_passwords(body)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} …"
    try:
        link = url_for(flow_run) or f"Flow run {flow_run.id}"
        block.notify(f"{text}\n{link}", subject)  # type: ignore[unused-coroutine]  # synchronous outside an event loop
    except Exception as error:
        # The message may hold the webhook's address, and anyone who has the address can write to the channel.
        logger.error("%s=%s: no notification was sent. %s", VARIABLE, name, type(error).__name__)


def block_problem() -> str | None:
    """Explain why the configured block cannot notify anyone; None if it can, or if no block is configured."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    try:
        _load(name)
    except Exception as error:
        return (
            f"{VARIABLE}={name}: nobody is notified of failed runs. {_first_line(error)} "
            "Create the block on Prefect's page Blocks, or correct the variable."
        )
    return None


def _load(name: str) -> NotificationBlock:
    block = Block.load(name)
    if not isinstance(block, NotificationBlock):
        raise ValueError(f"The block is a {type(block).__name__}, not a notification block.")
    return block


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
