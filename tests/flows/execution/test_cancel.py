"""Somebody presses Cancel in Prefect's pages, on a run of a served deployment."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import get_client
from prefect.states import Cancelling

from flows.train import train
from tests.command import processes_in
from tests.conftest import ROOT
from tests.flows.toy_project import SERVED, MakeProject, PrefectServer, new_run, serving, state, wait_for

GRAPH = "stages: {slow: {cmd: touch BEGUN && (test -e GO || sleep 300) && echo 1 > out.txt, outs: [out.txt]}}"
PATIENCE = 120


@pytest.mark.hard
def test_cancel_ends_all_that_a_served_run_started_and_the_next_run_works(
    make_project: MakeProject, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    folder = make_project(GRAPH.replace("GO", str(tmp_path / "go")).replace("BEGUN", str(begun := tmp_path / "begun")))
    (folder / "prefect.yaml").write_text(SERVED.format(entrypoint="flows.train.train"))
    params = (ROOT / "params.yaml").read_bytes()
    (folder / "params.yaml").write_bytes(params)
    deployment = train.to_deployment("served").apply()
    with serving():
        run = new_run(deployment, epochs=3)
        wait_for(begun.exists, seconds=PATIENCE)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelling())
        wait_for(lambda: state(run).is_final(), seconds=PATIENCE)
        assert state(run).is_cancelled(), state(run)
        wait_for(lambda: not [line for line in processes_in(folder) if "sleep" in line or "dvc" in line])
        assert (folder / "params.yaml").read_bytes() == params
        assert not any((folder / ".lectern/runs").glob("*"))
        (tmp_path / "go").touch()
        run = new_run(deployment)
        wait_for(lambda: state(run).is_final(), seconds=PATIENCE)
    assert state(run).is_completed(), state(run)
    assert (folder / "out.txt").read_text() == "1\n"
