"""Files that a killed DVC left incomplete are repaired."""

import json
import os
from pathlib import Path

import pytest

from flows.graph.plan import read_plan
from pipeline.errors import UsageError
from tests.flows.toy_project import TWO_STAGES, MakeProject, dvc


@pytest.fixture
def done(make_project: MakeProject) -> Path:
    """A project without stale stages."""
    folder = make_project(TWO_STAGES)
    (folder / "source.txt").write_text("1")
    dvc("repro", "--quiet")
    return folder


def stale(folder: Path) -> list[str]:
    return [stage.name for stage in read_plan(folder).to_run()]


def test_a_dvc_lock_that_was_cut_off_anywhere_is_repaired(done: Path):
    whole = (done / "dvc.lock").read_text()
    for at in range(0, len(whole), 61):
        (done / "dvc.lock").write_text(whole[:at])
        stale(done)
    dvc("repro", "--quiet")
    assert stale(done) == []
    assert (done / "ran.txt").read_text().split().count("one") == 1  # DVC restores it from its cache


def test_the_complete_stages_of_a_dvc_lock_stay(done: Path):
    lock = done / "dvc.lock"
    lock.write_text(lock.read_text()[:-25] + "  x")
    assert stale(done) == ["two"]


def test_a_merge_conflict_in_dvc_lock_is_left_to_the_user(done: Path):
    lock = done / "dvc.lock"
    conflicted = lock.read_text().replace("  two:", "<<<<<<< HEAD\n  two:\n=======\n  two:\n>>>>>>> theirs\n")
    lock.write_text(conflicted)
    with pytest.raises(UsageError, match="conflict"):
        stale(done)
    assert lock.read_text() == conflicted


def test_an_incomplete_rwlock_is_removed(done: Path):
    (done / ".dvc/tmp/rwlock").write_text("")
    assert stale(done) == []


def test_another_process_with_the_id_of_a_killed_dvc_blocks_nothing(done: Path):
    killed = {"pid": os.getpid(), "cmd": "/usr/bin/dvc repro"}
    held = {"write": {str(done / "one.txt"): killed}, "read": {str(done / "source.txt"): [killed]}}
    (done / ".dvc/tmp/rwlock").write_text(json.dumps(held))
    assert stale(done) == []
