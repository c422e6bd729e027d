"""Deploying prefect.yaml, the shipped one and wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from flows.services.deployments import deploy
from pipeline.errors import UsageError
from tests.conftest import ROOT
from tests.flows.toy_project import SERVED

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_the_shipped_file_deploys_every_flow_with_its_schedule_and_form(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    before = (ROOT / "prefect.yaml").read_bytes()
    found = {deployment.name: deployment.schedule for deployment in deploy()}
    assert found == {
        "train/nightly": "0 2 * * *, UTC",
        "watch/hourly": "30 * * * *, UTC",
        "titles/hourly": "15 * * * *, UTC",
        "promote/by-hand": "on request",
    }
    with get_client(sync_client=True) as client:
        promote = client.read_deployment_by_name("promote/by-hand")
        assert (promote.work_pool_name, promote.job_variables["working_dir"]) == ("lectern", str(ROOT))
        assert promote.parameter_openapi_schema["properties"].keys() == {"version", "because", "hours"}
        for name in found:
            client.delete_deployment(client.read_deployment_by_name(name).id)
    assert (ROOT / "prefect.yaml").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("deployments: none", "deployments: Input should be a valid list"),
        (SERVED.format(entrypoint="flows.train.missing"), "missing"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(
    wrong: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.yaml").write_text(wrong)
    with pytest.raises(UsageError) as refused:
        deploy()
    assert "prefect.yaml cannot be deployed" in str(refused.value)
    assert named in str(refused.value)


@pytest.mark.slow
def test_a_pool_without_a_worker_on_this_machine_is_refused_with_the_command_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="lectern-docker", type="docker"))
    (tmp_path / "prefect.yaml").write_text(
        "deployments: [{name: elsewhere, entrypoint: flows.train.train, work_pool: {name: lectern-docker}, pull: []}]"
    )
    with pytest.raises(UsageError, match="prefect worker start --pool lectern-docker --type docker"):
        deploy()
