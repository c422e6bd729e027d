import os
import sys
from pathlib import Path

import pytest

from flows.execution.child_process import Child
from flows.graph.plan import Busy, read_plan
from pipeline.errors import UsageError
from tests.flows.toy_project import MakeProject, dvc, wait_for

PIPELINE = """
    stages:
      last:
        cmd: cat copy-a copy-b > last.txt
        deps:
          - copy-a
          - copy-b
        outs:
          - last.txt
      aside:
        cmd: echo aside > aside.txt
        outs:
          - aside.txt
      copy:
        foreach: [a, b]
        do:
          cmd: cp first.txt copy-${item}
          deps:
            - first.txt
          outs:
            - copy-${item}
          meta:
            slot: gpu
      first:
        cmd: cp source.txt first.txt
        deps:
          - source.txt
        outs:
          - first.txt
"""


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    folder = make_project(PIPELINE)
    (folder / "source.txt").write_text("1")
    return folder


def names(folder: Path) -> list[str]:
    return [stage.name for stage in read_plan(folder).to_run()]


def test_every_stage_comes_after_its_upstream_stages(folder: Path):
    seen: set[str] = set()
    for stage in read_plan(folder).stages:
        assert seen.issuperset(stage.upstream)
        seen.add(stage.name)
    assert seen == {"first", "copy@a", "copy@b", "last", "aside"}


def test_a_stage_knows_how_many_stages_come_after_it(folder: Path):
    depths = {stage.name: stage.depth for stage in read_plan(folder).stages}
    assert depths == {"first": 2, "copy@a": 1, "copy@b": 1, "last": 0, "aside": 0}


def test_each_stage_of_a_foreach_has_its_slot(folder: Path):
    slots = {stage.name: stage.slot for stage in read_plan(folder).stages}
    assert slots == {"first": None, "copy@a": "gpu", "copy@b": "gpu", "last": None, "aside": None}


def test_every_stage_of_a_fresh_project_runs(folder: Path):
    assert sorted(names(folder)) == ["aside", "copy@a", "copy@b", "first", "last"]


def test_nothing_runs_after_repro(folder: Path):
    dvc("repro", "--quiet")
    assert names(folder) == []


def test_only_a_stale_stage_and_its_downstream_stages_run(folder: Path):
    dvc("repro", "--quiet")
    (folder / "copy-b").unlink()
    assert names(folder) == ["copy@b", "last"]


def test_a_changed_data_source_makes_its_readers_stale_and_is_not_a_stage(folder: Path):
    dvc("add", "--quiet", "source.txt")
    dvc("repro", "--quiet")
    (folder / "source.txt").unlink()
    (folder / "source.txt").write_text("2")
    assert names(folder) == ["first", "copy@a", "copy@b", "last"]


def test_dvc_explains_a_broken_graph(make_project: MakeProject):
    folder = make_project("stages: {one: {cmd: touch x, outs: [x]}, two: {cmd: touch x, outs: [x]}}")
    with pytest.raises(UsageError, match="output 'x' is specified in"):
        read_plan(folder)


def test_the_plan_is_busy_while_another_dvc_process_runs_a_stage(make_project: MakeProject):
    folder = make_project("stages: {slow: {cmd: touch started && sleep 30, outs: [x]}}")
    with Child([sys.executable, "-m", "dvc", "repro", "--quiet"], env=os.environ):
        wait_for((folder / "started").exists)
        with pytest.raises(Busy, match="busy"):
            read_plan(folder)
