"""What the flow `promote` has done to a version, as tasks that are tried again when a server is away.

A refusal is final. So is what is no word of ours: it is a bug.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows.execution.slots import on_a_device
from flows.execution.stage import stage_task
from flows.reporting.version_summary import facts
from pipeline.errors import TemporaryFailure
from pipeline.registry.gate import PromoteSettings, Verdict, judge
from pipeline.registry.outages import translate_error
from pipeline.registry.promotion import Move, PromotionRejected, find_promotion, promote
from pipeline.registry.tracking import connect
from pipeline.registry.versions import get_candidate


@dataclass(frozen=True)
class Proposal:
    """The version that a person is asked about, and what they need to know of it, as Markdown."""

    version: int
    facts: str


def _may_pass(_task: Task, _run: TaskRun, state: State) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, Exception) and isinstance(translate_error(error), TemporaryFailure)


registry_task = functools.partial(stage_task, retry_condition_fn=_may_pass)
"""What makes a Prefect task of a function that works on the registry."""


@registry_task(name="judge", task_run_name="judge")
def judge_version(name: str, number: int | None, settings: PromoteSettings) -> Proposal:
    """Judges a version of `name`, the challenger where `number` is None, and moves nothing.

    Raises:
        UsageError, Rejected, TemporaryFailure: as a promotion would.
    """
    client = connect()
    version, champion = get_candidate(client, name, number)
    with on_a_device():
        verdict = _verdict(client, settings, version, champion)
    if not verdict.passed:
        raise PromotionRejected(name, verdict)
    return Proposal(int(version.version), facts(name, version, champion, verdict))


@registry_task(name="promote", task_run_name="promote")
def make_champion(name: str, number: int | None, settings: PromoteSettings, because: str, who: str | None) -> Move:
    """Promotes that version, if it passes.

    Raises:
        UsageError, Rejected, TemporaryFailure: as `lectern promote` would.
    """
    client = connect()
    judge_here = functools.partial(_verdict, client, settings)
    if runtime.task_run.run_count > 1 and (made := find_promotion(client, name, number, because, who)):
        return made  # the last attempt did not hear of it
    with on_a_device():  # before the registry is locked: a training that registers shall not wait for one that trains
        move, _ = promote(client, name, number, because=because, judge=judge_here, who=who)
    return move


def _verdict(
    client: MlflowClient, settings: PromoteSettings, version: ModelVersion, champion: ModelVersion | None
) -> Verdict:
    """Which then stands beside the run too."""
    verdict = judge(client, version, champion, settings)
    create_markdown_artifact(key="promotion", markdown=facts(version.name, version, champion, verdict))
    return verdict
