"""Stages on the machines of a cluster: here one after another, each in a clone of the project."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
from prefect.client.schemas.objects import State

from flows.cluster import ray_cluster
from flows.cluster.worker import Source, run_stage_there
from flows.graph.plan import Stage
from flows.graph.workbook import adopt
from flows.train import train
from tests.flows.toy_project import MakeProject, dvc

pytestmark = pytest.mark.usefixtures("prefect_server")

# Each stage adds the work tree in which it runs to a file outside the repository.
GRAPH = """
    stages:
      ingest:
        cmd: pwd >> NOTES && mkdir -p reports && cp ${ingest.workbook} reports/lessons
        params: [ingest]
        deps: ["${ingest.workbook}"]
        outs: [reports/lessons]
      train:
        foreach: ${contestants}
        do:
          cmd: pwd >> NOTES && cp params.yaml reports/trained-${item}
          params: ["models.${item}", train]
          deps: [reports/lessons]
          outs:
            - reports/trained-${item}
"""

PARAMS = """\
contestants: [t5-tiny]
train: {epochs: 2}
models: {t5-tiny: {checkpoint: scratch}, bart-tiny: {checkpoint: scratch}}
ingest: {workbook: lessons.xlsx}
"""


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *words], check=True)


def push() -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", "A commit")
    git("push", "--quiet", "origin", "HEAD")


def write_workbook(path: Path, title: str) -> Path:
    lesson = {"course_title": ["C"], "lesson_num": "1", "timestamp": "0:00:00"}
    with pd.ExcelWriter(path) as workbook:
        for sheet, column in (("lesson_topics", "topic"), ("lesson_transcripts", "transcript")):
            pd.DataFrame({**lesson, column: title}).to_excel(workbook, sheet_name=sheet, index=False)
    return path


def one_after_another(
    stages: Sequence[Stage], source: Source, _runner: None, _machines: None, _stop: Callable[[], None]
) -> dict[str, State]:
    return {stage.name: run_stage_there(stage, source, [], return_state=True) for stage in stages}


@pytest.fixture
def folder(make_project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pushed project whose stages run in clones below `clones`, as on a machine of a cluster."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("LECTERN_RAY_ADDRESS", "auto")
    monkeypatch.setenv("LECTERN_WORK_TREES", str(tmp_path / "clones"))
    monkeypatch.setattr(ray_cluster, "connected", lambda: nullcontext((None, None)))
    monkeypatch.setattr(ray_cluster, "_run_there", one_after_another)
    folder = make_project(GRAPH.replace("NOTES", str(tmp_path / "notes")))
    (folder / ".gitignore").write_text(".lectern\n.prefect\nreports\n")
    (folder / "params.yaml").write_text(PARAMS)
    write_workbook(folder / "lessons.xlsx", "Committed")
    dvc("remote", "add", "--default", "shared", str(tmp_path / "remote"))
    git("init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    git("remote", "add", "origin", str(tmp_path / "origin.git"))
    push()
    return folder


def title(workbook: Path) -> str:
    return pd.read_excel(workbook, sheet_name="lesson_topics", engine="calamine")["topic"][0]


def ran_in_clones(folder: Path) -> bool:
    places = (folder.parent / "notes").read_text().split()
    return bool(places) and all(Path(place).is_relative_to(folder.parent / "clones") for place in places)


@pytest.mark.slow
def test_the_parameters_of_a_run_reach_the_machines_and_no_later_run(folder: Path, tmp_path: Path):
    by_hand = write_workbook(tmp_path / "other.xlsx", "By hand")
    state = train(models=["bart-tiny"], epochs=7, workbook=str(by_hand), return_state=True)
    assert state.is_completed(), state.message
    assert ran_in_clones(folder)
    (reports,) = (folder / "reports/runs").iterdir()
    assert title(reports / "lessons") == "By hand"
    assert "epochs: 7" in (reports / "trained-bart-tiny").read_text()
    assert not (folder / "reports/lessons").exists()
    assert (folder / "params.yaml").read_text() == PARAMS

    state = train(return_state=True)
    assert state.is_completed(), state.message
    assert ran_in_clones(folder)
    assert title(folder / "reports/lessons") == "Committed"
    assert (folder / "reports/trained-t5-tiny").read_text() == PARAMS


@pytest.mark.slow
def test_an_updated_workbook_reaches_the_machines(folder: Path, tmp_path: Path):
    workbook = adopt(str(write_workbook(tmp_path / "fetched.xlsx", "Old")))
    push()
    write_workbook(tmp_path / "fetched.xlsx", "New")
    dvc("update", f"{workbook}.dvc")
    state = train(return_state=True)
    assert state.is_completed(), state.message
    assert ran_in_clones(folder)
    assert title(folder / "reports/lessons") == "New"
