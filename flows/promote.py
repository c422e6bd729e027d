"""The flow `promote`: judge a version, ask a person if `params.yaml` says so, make it the champion, and export it.

A run that waits for an answer is suspended: it holds no process, and the worker may be stopped meanwhile. The answer
starts the flow from its beginning, so the run keeps the version that it asked about among its inputs in Prefect.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.input.actions import create_flow_run_input, read_flow_run_input
from prefect.states import Cancelled, Completed
from prefect.tasks import Task
from pydantic import Field, ValidationError

from flows.execution.run_processes import RunProcesses
from flows.execution.slots import devices, on_a_device
from flows.execution.stage import failed_state, run_lectern, stage_task
from flows.reporting.artifacts import mlflow_address
from flows.reporting.events import emit_promotion
from flows.reporting.notifications import notify, notify_failure
from flows.train import reason
from pipeline.errors import TemporaryFailure, UsageError
from pipeline.evaluation.score_names import SCORES
from pipeline.extras import has_extra
from pipeline.registry.gate import PromoteSettings, Verdict, judge
from pipeline.registry.outages import translate_error
from pipeline.registry.promotion import Move, PromotionRejected, find_promotion
from pipeline.registry.promotion import promote as promote_version
from pipeline.registry.register_settings import RegisterSettings
from pipeline.registry.tracking import connect
from pipeline.registry.versions import get_candidate

PROPOSAL_KEY = "asked-about"
"""Key of the flow run's input with the version that a person shall approve."""

HOUR = 60 * 60

P = ParamSpec("P")
R = TypeVar("R")

Number = Annotated[int, Field(ge=1)]
Reason = Annotated[str, Field(max_length=500)]
Hours = Annotated[float, Field(gt=0, le=24 * 30)]


class Answer(RunInput):
    """A person's answer, in the form that Prefect shows on the page of a waiting run."""

    answer: Literal["yes", "no"] = Field(description="yes: promote the version. no: end the run and change nothing.")
    who: str = Field(min_length=1, max_length=100, description="Your name; kept with the registered model.")
    reason: Reason = Field("", description="Your reason; kept with the registered model.")


@dataclass(frozen=True)
class Proposal:
    """A version that passed, and a summary of it in Markdown for the person who decides."""

    version: int
    facts: str


def version_wanted() -> str:
    """Name of a run: the version that it promotes."""
    version = runtime.flow_run.parameters.get("version")
    return f"version {version}" if version else "the challenger"


@flow(
    name="promote",
    flow_run_name=version_wanted,
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def promote(version: Number | None = None, because: Reason = "", hours: Hours = 24) -> State:
    """Make a version the champion, if it passes the rules of params.yaml and, where required, a person agrees.

    Then export it, if that makes its titles faster.

    Args:
        version: Number of the version in the registry; empty: the challenger.
        because: Your reason; kept with the registered model.
        hours: How long the run waits for an answer. Without an answer it fails, and the champion stays.
    """
    who = None
    try:
        name, settings = RegisterSettings.read().name, PromoteSettings.read()
        number = version
        if settings.approval == "person":
            proposal = remembered_proposal() or propose(name, number, settings, hours)
            answer = ask(proposal, hours)
            if answer.answer == "no":
                return Cancelled(message=f"{answer.who} said no; the champion stays. {answer.reason}".strip())
            number, who = proposal.version, answer.who
            because = "; ".join(filter(None, [because, answer.reason]))
        move = make_champion(name, number, settings, because, who)
    except Exception as error:
        return failed_state(error)
    before = f"Before, it was version {move.before}." if move.before else "There was no champion before."
    try:
        no_export = export_where_faster(move.version)
    finally:
        emit_promotion(name, move)  # only now: the titles that an automation writes after it use the export
    return Completed(message=f"Version {move.version} of '{name}' is now the champion. {before}{no_export}")


def export_where_faster(number: str) -> str:
    """Export the new champion on a machine whose CPU writes the titles.

    Returns:
        A line with the reason if there is no export although it was tried, else an empty text.
    """
    if not has_extra("fast") or any(devices()):
        return ""
    state: State = export_champion(number, return_state=True)
    if state.is_completed():
        return ""
    return f"\nThe model itself writes its titles, because there is no export: {reason(state)}"


def remembered_proposal() -> Proposal | None:
    """Return the proposal that this run made before it was suspended."""
    proposal: Any = read_flow_run_input(PROPOSAL_KEY)
    return Proposal(**proposal) if proposal else None


def propose(name: str, number: int | None, settings: PromoteSettings, hours: float) -> Proposal:
    """Judge a version, remember it, and notify operators that an answer is needed.

    Args:
        name: the registered model.
        number: the version; None: the challenger.
        settings: the rules.
        hours: how long the run waits for an answer.

    Raises:
        UsageError, Rejected, TemporaryFailure: the version cannot be promoted, so there is nothing to ask.
    """
    if runtime.deployment.id is None:
        raise UsageError(
            "Only a run of a deployment can wait for an answer. Start promote/by-hand in Prefect's pages, "
            "or use `lectern promote`."
        )
    proposal = judge_version(name, number, settings)
    context = FlowRunContext.get()
    assert context is not None  # this is a flow run
    assert context.flow_run is not None  # and Prefect's server knows it
    create_flow_run_input(PROPOSAL_KEY, asdict(proposal))
    notify(
        f"Shall version {proposal.version} of '{name}' become the champion?",
        f"The version passes the rules. Answer within {hours:g} hours: press Resume on the run's page.",
        context.flow_run,
        get_run_logger(),
    )
    return proposal


def ask(proposal: Proposal, hours: float) -> Answer:
    """Suspend the run; after the answer, the flow starts again and this returns it.

    Raises:
        UsageError: the run was started again without an answer.
    """
    form = Answer.with_initial_data(description=proposal.facts)
    try:
        return suspend_flow_run(wait_for_input=form, timeout=math.ceil(hours * HOUR), key="approval")
    except ValidationError:
        raise UsageError("This run got no answer, and cannot ask again. Start a new run.") from None


def _is_temporary(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Return whether a retry can help: a refusal is final, and an unknown error is a bug."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, Exception) and isinstance(translate_error(error), TemporaryFailure)


def registry_task(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a Prefect task of a function that uses the registry; retry it when the registry does not answer."""
    decorator: Callable[[Callable[P, R]], Callable[P, R]] = stage_task(
        name=name, task_run_name=name, retry_condition_fn=_is_temporary
    )
    return decorator


@registry_task("judge")
def judge_version(name: str, number: int | None, settings: PromoteSettings) -> Proposal:
    """Judge a version without changing anything.

    Args:
        name: the registered model.
        number: the version; None: the challenger.
        settings: the rules.

    Raises:
        UsageError, Rejected, TemporaryFailure: as a promotion would.
    """
    client = connect()
    version, champion = get_candidate(client, name, number)
    with on_a_device():
        verdict = _verdict(client, settings, version, champion)
    if not verdict.passed:
        raise PromotionRejected(name, verdict)
    return Proposal(int(version.version), summarize(name, version, champion, verdict))


@registry_task("promote")
def make_champion(name: str, number: int | None, settings: PromoteSettings, because: str, who: str | None) -> Move:
    """Promote a version, if it passes.

    Raises:
        UsageError, Rejected, TemporaryFailure: as `lectern promote` would.
    """
    client = connect()
    if runtime.task_run.run_count > 1 and (made := find_promotion(client, name, number, because, who)):
        return made  # by the previous attempt, which did not get the registry's answer
    # Wait for a device before the registry is locked: a training that registers must not wait for one that trains.
    with on_a_device():
        judge_here = functools.partial(_verdict, client, settings)
        move, _ = promote_version(client, name, number, because=because, judge=judge_here, who=who)
    return move


@stage_task(name="export", task_run_name="export", retries=0)
def export_champion(number: str) -> None:
    """Run `lectern export` for a version.

    Raises:
        StageRejected, StageBroke: nothing was exported; the message quotes the output.
    """
    processes = RunProcesses()
    try:
        run_lectern("export", number, processes=processes)
    finally:
        processes.stop()


def _verdict(
    client: MlflowClient, settings: PromoteSettings, version: ModelVersion, champion: ModelVersion | None
) -> Verdict:
    """Judge the version, and publish the verdict on the run's page."""
    verdict = judge(client, version, champion, settings)
    create_markdown_artifact(key="promotion", markdown=summarize(version.name, version, champion, verdict))
    return verdict


def summarize(name: str, version: ModelVersion, champion: ModelVersion | None, verdict: Verdict) -> str:
    """Describe a version in Markdown: its origin, the result of each rule, and its scores next to the champion's."""
    return "\n".join(_summary_lines(name, version, champion, verdict))


def _summary_lines(name: str, version: ModelVersion, champion: ModelVersion | None, verdict: Verdict) -> Iterator[str]:
    yield f"Version **{version.version}** of '{name}': {_origin(version)}."
    yield f"Champion: {f'version {champion.version}, {_origin(champion)}' if champion else 'none yet'}."
    yield from ("", "On today's test split:", "", verdict.as_markdown())
    yield from ("", "Scores on the test split at registration:", "")
    compared = [version, *([champion] if champion else [])]
    yield _row("", f"version {version.version}", *([f"champion, version {champion.version}"] if champion else []))
    yield _row("---", *("--:" for _ in compared))
    for score in SCORES:
        yield _row(score, *(one.tags.get(f"test.{score}", "-") for one in compared))
    if (mlflow := mlflow_address()).startswith("http"):
        yield from ("", f"[Version {version.version} in MLflow]({mlflow}/#/models/{name}/versions/{version.version})")


def _origin(version: ModelVersion) -> str:
    tags = version.tags
    commit, workbook = tags.get("git.commit", "unknown")[:8], tags.get("data.workbook", "unknown")
    return f"`{tags.get('model', 'unknown')}`, from commit {commit} and workbook {workbook}"


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
