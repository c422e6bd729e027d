"""The flow `promote`: judges a version, asks a person where `params.yaml` wants one, and makes it the champion.

A run that waits for an answer is suspended: it holds no process, and what serves the flows may be stopped meanwhile.
Once answered it begins anew, and so remembers in Prefect which version it has asked about.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated, Literal

from prefect import flow, get_run_logger, runtime
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.input.actions import create_flow_run_input, read_flow_run_input
from prefect.states import Cancelled, Completed, State
from pydantic import Field, ValidationError

from flows.execution.stage import failed_state
from flows.promotion_tasks import Proposal, judge_version, make_champion
from flows.reporting.events import announce
from flows.reporting.notifications import send, tell
from pipeline.errors import UsageError
from pipeline.registry.gate import PromoteSettings
from pipeline.registry.versions import RegisterSettings

ASKED_ABOUT = "asked-about"
"""Under which a run remembers, among its inputs, which version it has asked about."""

HOUR = 60 * 60

Number = Annotated[int, Field(ge=1)]
Reason = Annotated[str, Field(max_length=500)]
Hours = Annotated[float, Field(gt=0, le=24 * 30)]


class Answer(RunInput):
    """What a person says to a version, in the form that Prefect shows with a run that waits."""

    answer: Literal["yes", "no"] = Field(description="yes: it becomes the champion. no: the run ends, nothing moves.")
    who: str = Field(min_length=1, max_length=100, description="Your name; kept with the registered model.")
    reason: Reason = Field("", description="Why; kept with the registered model.")


def version_wanted() -> str:
    """What a run is called: which version it is to promote."""
    version = runtime.flow_run.parameters.get("version")
    return f"version {version}" if version else "the challenger"


@flow(
    name="promote",
    flow_run_name=version_wanted,
    persist_result=False,
    on_failure=[tell],
    on_crashed=[tell],
)
def promote(version: Number | None = None, because: Reason = "", hours: Hours = 24) -> State:
    """Makes a version the champion, if it passes the rules of params.yaml, and if a person agrees where that is wanted.

    Args:
        version: Its number in the registry; empty: the challenger.
        because: Why; kept with the registered model.
        hours: How long the run waits for an answer. Without one it fails, and nothing moves.
    """
    who = None
    try:
        name, settings = RegisterSettings.read().name, PromoteSettings.read()
        if settings.approval == "person":
            proposal = remembered() or propose(name, version, settings, hours)
            answer = ask(proposal, hours)
            if answer.answer == "no":
                return Cancelled(message=f"Nothing moved: {answer.who} said no. {answer.reason}".strip())
            version, who = proposal.version, answer.who
            because = "; ".join(filter(None, [because, answer.reason]))
        move = make_champion(name, version, settings, because, who)
    except Exception as error:
        return failed_state(error)
    announce(name, move)
    before = f"version {move.before} was" if move.before else "there was none"
    return Completed(message=f"Version {move.version} of '{name}' is the champion now; before it {before}.")


def remembered() -> Proposal | None:
    """What this run has asked about before it was suspended."""
    proposal = read_flow_run_input(ASKED_ABOUT)
    return Proposal(**proposal) if proposal else None


def propose(name: str, number: int | None, settings: PromoteSettings, hours: float) -> Proposal:
    """Has the version judged, the challenger where `number` is None; remembers it, and says that an answer is awaited.

    Raises:
        UsageError, Rejected, TemporaryFailure: as a promotion would. Then nobody need be asked.
    """
    if runtime.deployment.id is None:
        raise UsageError(
            "Only a run of a deployment can wait for an answer. Start promote/by-hand in Prefect's pages, "
            "or use `lectern promote`."
        )
    proposal = judge_version(name, number, settings)
    create_flow_run_input(ASKED_ABOUT, asdict(proposal))
    send(
        f"Shall version {proposal.version} of '{name}' become the champion?",
        f"It passes. An answer is awaited for {hours:g} hours: press Resume on the page of the run.",
        FlowRunContext.get().flow_run,
        get_run_logger(),
    )
    return proposal


def ask(proposal: Proposal, hours: float) -> Answer:
    """Suspends the run. It begins anew once there is an answer, and this returns that.

    Raises:
        UsageError: it began anew without an answer.
    """
    form = Answer.with_initial_data(description=proposal.facts)
    try:
        return suspend_flow_run(wait_for_input=form, timeout=math.ceil(hours * HOUR), key="approval")
    except ValidationError:
        raise UsageError("Nobody has answered this run, and it cannot ask again. Start a new one.") from None
