"""A workbook is updated from its source, and a training starts if it has changed."""

import random
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pandas as pd
import pytest
from prefect import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.exceptions import PrefectHTTPStatusError

from flows.graph.plan import read_plan
from flows.graph.workbook import adopt
from flows.train import train
from flows.watch import watch
from tests.flows.toy_project import MakeProject, dvc
from tests.web_server import web_server

pytestmark = pytest.mark.usefixtures("prefect_server")


def write_workbook(path: Path, *titles: str) -> None:
    """Write one lesson with a topic and a line for each minute."""
    lesson = {
        "course_title": "C",
        "lesson_num": "1",
        "timestamp": [f"0:{minute:02d}:00" for minute in range(len(titles))],
    }
    with pd.ExcelWriter(path) as workbook:
        for sheet, column in (("lesson_topics", "topic"), ("lesson_transcripts", "transcript")):
            pd.DataFrame({**lesson, column: titles}).to_excel(workbook, sheet_name=sheet, index=False)


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    folder = make_project("""
        stages:
          ingest:
            cmd: touch ingested
            deps: ["${ingest.workbook}"]
            outs: [ingested]
    """)
    (folder / "params.yaml").write_text(
        "{contestants: [], models: {}, ingest: {workbook: none.xlsx}, fetch: {megabytes: 9, seconds: 90}}\n"
    )
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (folder := tmp_path / "elsewhere").mkdir()
    write_workbook(folder / "lessons.xlsx", "Old")
    return folder


@pytest.fixture
def address(elsewhere: Path) -> Iterator[str]:
    with web_server(partial(SimpleHTTPRequestHandler, directory=str(elsewhere))) as address:
        yield address


@pytest.fixture
def watched_server(elsewhere: Path, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """An address, and for each download from it: 0 if a flow run could start meanwhile, else 1."""
    could: list[int] = []
    begin = "from flows.graph.exclusive_access import *; work_tree_lock().acquire(timeout=0)"

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            done = subprocess.run([sys.executable, "-c", begin], cwd=folder, stderr=subprocess.DEVNULL, check=False)
            try:
                super().do_GET()
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.recv(1)
            except OSError:  # it wanted the header only
                return
            could.append(done.returncode)

    with web_server(partial(Handler, directory=str(elsewhere))) as address:
        yield address, could


@pytest.fixture
def deployment() -> str:
    """The name of a deployment of `train` without a worker."""
    train.to_deployment("watched").apply()
    return "train/watched"


def started(deployment: str) -> int:
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        return len(client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[found.id]))))


@pytest.mark.parametrize("place", ["file", "url"])
def test_a_training_starts_once_when_the_workbook_has_changed(
    folder: Path, elsewhere: Path, address: str, deployment: str, place: str
):
    adopt(f"{address}/lessons.xlsx" if place == "url" else str(elsewhere / "lessons.xlsx"))
    dvc("repro", "--quiet")
    before = started(deployment)
    assert "has not changed since the last training" in watch(deployment, return_state=True).message
    assert started(deployment) == before

    write_workbook(elsewhere / "lessons.xlsx", "Old", "New")
    assert "is newer" in watch(deployment, return_state=True).message
    assert started(deployment) == before + 1
    assert (folder / "data/workbooks/lessons.xlsx").read_bytes() == (elsewhere / "lessons.xlsx").read_bytes()


@pytest.mark.slow
def test_a_run_on_another_workbook_does_not_make_the_projects_workbook_newer(
    folder: Path, elsewhere: Path, deployment: str
):
    adopt(str(elsewhere / "lessons.xlsx"))
    dvc("repro", "--quiet")
    before = started(deployment)
    write_workbook(elsewhere / "other.xlsx", "Other")
    assert train(workbook=str(elsewhere / "other.xlsx"), return_state=True).is_completed()
    assert "has not changed since the last training" in watch(deployment, return_state=True).message
    assert started(deployment) == before

    write_workbook(elsewhere / "lessons.xlsx", "Old", "New")
    assert "is newer" in watch(deployment, return_state=True).message
    assert started(deployment) == before + 1


def test_a_workbook_without_a_source_is_newer_until_it_is_trained_on(folder: Path, deployment: str):
    write_workbook(folder / "lessons.xlsx", "Old")
    (folder / "params.yaml").write_text("ingest: {workbook: lessons.xlsx}\n")
    dvc("repro", "--quiet")
    (folder / "dvc.yaml").write_text((folder / "dvc.yaml").read_text().replace("touch", "touch -c x &&  touch"))
    assert [stage.name for stage in read_plan(folder).to_run()] == ["ingest"]
    assert "has not changed since the last training" in watch(deployment, return_state=True).message

    before = started(deployment)
    write_workbook(folder / "lessons.xlsx", "Old", "New")
    for attempt in (1, 2):  # of which the first may have failed
        assert "is newer" in watch(deployment, return_state=True).message
        assert started(deployment) == before + attempt


@pytest.mark.slow
def test_a_broken_workbook_starts_no_training_and_replaces_nothing(
    folder: Path, elsewhere: Path, address: str, deployment: str
):
    adopt(f"{address}/lessons.xlsx")
    dvc("repro", "--quiet")
    before, good = started(deployment), (folder / "data/workbooks/lessons.xlsx").read_bytes()
    (elsewhere / "lessons.xlsx").write_bytes(b"no workbook")
    state = watch(deployment, return_state=True)
    assert state.is_failed()
    assert "lessons.xlsx" in state.message
    assert started(deployment) == before
    assert (folder / "data/workbooks/lessons.xlsx").read_bytes() == good
    assert read_plan(folder).to_run() == []


def test_a_missing_source_fails_the_run_and_keeps_the_workbook(folder: Path, elsewhere: Path, deployment: str):
    adopt(str(elsewhere / "lessons.xlsx"))
    (elsewhere / "lessons.xlsx").unlink()
    state = watch(deployment, return_state=True)
    assert state.is_failed()
    assert "cannot be updated" in state.message
    assert "lessons.xlsx" in state.message
    assert (folder / "data/workbooks/lessons.xlsx").is_file()


def test_a_misspelt_setting_fails_the_run_with_its_name(folder: Path):
    (folder / "params.yaml").write_text("{contestants: [], models: {}, ingest: {workbok: none.xlsx}}\n")
    state = watch(return_state=True)
    assert state.is_failed()
    assert state.message.startswith("params.yaml")
    assert "ingest.workbok" in state.message


def test_the_workbook_stays_while_another_run_uses_the_work_tree(folder: Path, elsewhere: Path, deployment: str):
    adopt(str(elsewhere / "lessons.xlsx"))
    before = started(deployment)
    write_workbook(elsewhere / "lessons.xlsx", "Old", "New")
    hold = (
        "from flows.graph.exclusive_access import *; lock = work_tree_lock(); lock.acquire(); "
        "print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        state = watch(deployment, return_state=True)
        other.communicate("\n")
    assert state.is_completed()
    assert "will look again" in state.message
    assert started(deployment) == before


@pytest.mark.slow
def test_a_run_may_start_during_a_download_and_nothing_is_downloaded_twice(
    watched_server: tuple[str, list[int]], elsewhere: Path, deployment: str
):
    address, could = watched_server
    adopt(f"{address}/lessons.xlsx")
    could.clear()
    write_workbook(elsewhere / "lessons.xlsx", "Old", "New")
    with zipfile.ZipFile(elsewhere / "lessons.xlsx", "a") as archive:
        archive.writestr("picture.png", random.Random(1).randbytes(8_000_000))
    assert "is newer" in watch(deployment, return_state=True).message
    assert could == [0]


def test_a_name_that_is_not_a_deployment_of_a_training_is_refused_before_a_run_starts():
    deployment = watch.to_deployment("asked").apply()
    with get_client(sync_client=True) as client:
        for wrong in ("nightly", "promote/by-hand", "train/", "train/nightly/again", ""):
            with pytest.raises(PrefectHTTPStatusError) as refused:
                client.create_flow_run_from_deployment(deployment, parameters={"train": wrong})
            assert refused.value.response.status_code in (409, 422), wrong


def test_a_missing_deployment_fails_the_run_with_its_name(folder: Path, elsewhere: Path):
    adopt(str(elsewhere / "lessons.xlsx"))
    state = watch("train/nobody", return_state=True)
    assert state.is_failed()
    assert "no deployment 'train/nobody'" in state.message
