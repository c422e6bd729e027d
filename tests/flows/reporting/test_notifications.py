"""Operators are notified of failed and crashed runs; a notification that fails changes no run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect import Flow, flow, get_client
from prefect.blocks.system import Secret
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler
from prefect.states import Failed

from flows.promote import promote
from flows.reporting.notifications import notify_failure
from flows.titles import titles
from flows.train import train
from flows.watch import watch
from tests.flows.toy_project import SERVED, PrefectServer, new_run, serving, wait_for

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow(on_failure=[notify_failure], on_crashed=[notify_failure])
def refuses() -> State:
    return Failed(message="Row 7 has no title.")


@flow(on_failure=[notify_failure], on_crashed=[notify_failure])
def refuses_at_length() -> State:
    return Failed(message="\n".join(f"Row {row} has no title." for row in range(300)))


@flow(on_failure=[notify_failure], on_crashed=[notify_failure])
def succeeds() -> None:
    pass


KILLED = """
import os, signal
from prefect import flow
from flows.reporting.notifications import notify_failure

@flow(on_failure=[notify_failure], on_crashed=[notify_failure])
def killed():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def logged(state: State) -> str:
    APILogHandler().flush()
    run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return "\n".join(record.message for record in client.read_logs(run))


def test_a_notification_has_the_runs_name_message_and_link(channel: SimpleNamespace, prefect_server: PrefectServer):
    state = refuses(return_state=True)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    (told,) = channel.told
    assert told["subject"] == f"refuses, {run.name}: Failed"
    assert told["body"].splitlines() == [
        "Row 7 has no title.",
        f"{prefect_server.url.removesuffix('/api')}/runs/flow-run/{run.id}",
    ]


def test_a_long_message_is_cut_to_what_any_channel_accepts(channel: SimpleNamespace):
    refuses_at_length(return_state=True)
    (told,) = channel.told
    *rows, cut, _ = told["body"].splitlines()
    assert rows == [f"Row {row} has no title." for row in range(len(rows))]
    assert cut.endswith(" …")
    assert 1000 < len(told["body"]) < 3000  # limit of a section in Slack


def test_a_successful_run_sends_no_notification(channel: SimpleNamespace):
    assert succeeds(return_state=True).is_completed()
    assert channel.told == []


def test_without_a_configured_block_nothing_is_sent(channel: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LECTERN_NOTIFY")
    assert refuses(return_state=True).is_failed()
    assert channel.told == []


@pytest.mark.parametrize("failing", [train, titles, watch, promote], ids=lambda each: each.name)
def test_every_flow_notifies_of_its_failure(
    failing: Flow, channel: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # without a project, each flow fails at once
    (tmp_path / "linked").symlink_to("/elsewhere")
    parameters = {"outbox": "linked"} if failing is titles else {}
    assert failing(**parameters, return_state=True).is_failed()
    assert [told["subject"].split(",")[0] for told in channel.told] == [failing.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("custom-webhook/nobody", "Unable to find block document named nobody"),
        ("nonsense", "nonsense"),
        ("secret/no-channel", "The block is a Secret, not a notification block."),
        ("custom-webhook/operators", "HTTPStatusError"),
    ],
)
def test_a_broken_block_is_logged_and_changes_nothing(
    name: str, reason: str, channel: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    Secret(value="x").save("no-channel", overwrite=True)
    channel.status = 500
    monkeypatch.setenv("LECTERN_NOTIFY", name)
    state = refuses(return_state=True)
    assert state.message == "Row 7 has no title."
    wait_for(lambda: "no notification was sent" in logged(state))
    assert reason in logged(state)
    assert channel.url not in logged(state)


@pytest.mark.slow
def test_a_killed_run_is_reported(channel: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killed.py").write_text(KILLED)
    (tmp_path / "prefect.yaml").write_text(SERVED.format(entrypoint="killed.py:killed"))
    with serving(), get_client(sync_client=True) as client:
        new_run(client.read_deployment_by_name("killed/served").id)
        wait_for(lambda: channel.told)
    assert channel.told[0]["subject"].startswith("killed, ")
    assert channel.told[0]["subject"].endswith(": Crashed")
