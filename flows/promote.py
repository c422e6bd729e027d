"""The flow `promote`: the gate's verdict, a person's yes where params.yaml asks for one, and the champion moves."""

from __future__ import annotations

from typing import Annotated

from mlflow.entities.model_registry import ModelVersion
from prefect import flow, pause_flow_run
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows.notify import tell
from pipeline.errors import Misused, Refused, Unavailable
from pipeline.registry import versions
from pipeline.registry.gate import PromoteSettings, Verdict, judge
from pipeline.registry.tracking import connect

PROMOTED = "lectern.promoted"
"""The event of a promotion. Its resource is `lectern.model.NAME`."""

Version = Annotated[int, Field(ge=1)]
Hours = Annotated[float, Field(gt=0)]


class Answer(RunInput):
    """What the person is asked."""

    promote: bool = False
    because: str = ""


@flow(name="promote", persist_result=False, on_failure=[tell], on_crashed=[tell])
def promote(version: Version | None = None, because: str = "", hours: Hours = 24) -> State:
    """Makes a version the champion, if it passes the gate, and if a person says yes where params.yaml wants one asked.

    Args:
        version: The version; empty: the challenger.
        because: Why; kept with the registered model. The person who is asked may say something else.
        hours: How long the run waits for an answer.
    """
    try:
        name, settings, client = versions.RegisterSettings.read().name, PromoteSettings.read(), connect()
        number = str(version) if version else None
        challenger, champion = versions.version_and_champion(client, name, number)
        verdict = judge(name, challenger, champion, settings)
        create_markdown_artifact(key="verdict", markdown=verdict.as_markdown())
        if not verdict.passed:
            raise versions.NotPassed(name, verdict)
        if settings.approval == "person":
            answer = ask(verdict, hours)
            if not answer.promote:
                return Cancelled(message=f"Not promoted: a person said no. {answer.because}".strip())
            because = answer.because or because
        move, _ = versions.promote(
            client, name, verdict.version, because=because or "no reason given", judge=unless_moved(verdict, champion)
        )
    except FlowPauseTimeout:
        return Failed(message=f"Not promoted: nobody answered within {hours:g} hours.")
    except (Misused, Refused, Unavailable) as error:
        return Failed(message=str(error))
    emit_event(PROMOTED, resource={"prefect.resource.id": f"lectern.model.{name}"}, payload=vars(move))
    return Completed(message=f"Version {move.version} of '{name}' is the champion; before it: {move.before or 'none'}.")


def ask(verdict: Verdict, hours: float) -> Answer:
    """Waits for the answer on the page of the flow run, which shows the verdict.

    Raises:
        FlowPauseTimeout: nobody answers in time.
    """
    form = Answer.with_initial_data(description=verdict.as_markdown())
    return pause_flow_run(wait_for_input=form, timeout=round(hours * 3600), poll_interval=2)


def unless_moved(verdict: Verdict, champion: ModelVersion | None) -> versions.Judge:
    """The verdict, as long as the champion is the one that it is about."""

    def judge_again(_: ModelVersion, now: ModelVersion | None) -> Verdict:
        if (now and str(now.version)) != (champion and str(champion.version)):
            raise Refused("Somebody moved the champion meanwhile. Run this again, to be compared with the new one.")
        return verdict

    return judge_again
