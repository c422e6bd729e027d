"""`lectern clean` in a toy project with three generations of results; the first is a registered version."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient

from flows.execution.child_process import Child
from flows.maintenance.clean import clean
from pipeline.errors import TemporaryFailure, UsageError
from pipeline.paths import EXPORTS, STATE
from pipeline.registry.lineage import md5
from pipeline.registry.tracking import connect
from tests.command import kill_once
from tests.flows.toy_project import dvc, wait_for

PIPELINE = """
stages:
  split:
    cmd: cp source.txt split.txt && echo split >> runs.txt
    deps: [source.txt]
    outs: [split.txt]
  train:
    cmd: mkdir -p model && cp split.txt model/weights && echo $(cat split.txt) > note.txt && echo train >> runs.txt
    deps: [split.txt]
    outs: [model, note.txt]
"""
SLOW = """
  slow:
    cmd: touch started && sleep 60
    outs: [x]
"""
MONTHS = 100 * 24 * 60 * 60


def make(content: str) -> None:
    """Bring the project up to date with that text as its data."""
    Path("source.txt").write_text(content, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "repro"], check=True)


def runs() -> int:
    return len(Path("runs.txt").read_text(encoding="utf-8").splitlines())


def register(client: MlflowClient) -> None:
    tags = {"data.train.md5": md5(Path("split.txt")), "model.md5": md5(Path("model")), "git.commit": "none"}
    client.create_model_version("titles", "elsewhere", tags=tags)


def months_pass() -> None:
    for path in (*Path(".dvc/cache").rglob("*"), *STATE.rglob("*")):
        os.utime(path, (time.time() - MONTHS,) * 2)


@pytest.fixture(scope="module")
def template(empty_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cleaned") / "project"
    shutil.copytree(empty_project, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
        (folder / "params.yaml").write_text("models: {}", encoding="utf-8")
        client = connect()
        client.create_registered_model("titles")
        make("first")
        register(client)
        for content in ("second", "third"):
            make(content)
    return folder


@pytest.fixture
def folder(template: Path, enter_copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = enter_copy(template)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return folder


def cached() -> set[str]:
    """Return the contents of all files in DVC's cache."""
    return {path.read_text(encoding="utf-8").strip() for path in Path(".dvc/cache/files").rglob("*") if path.is_file()}


def test_exports_of_the_champion_and_recent_ones_stay(folder: Path):
    connect().set_registered_model_alias("titles", "champion", "1")
    champion, old, recent = (EXPORTS / "titles" / number for number in ("1", "2", "3"))
    for export in (champion, old, recent):
        export.mkdir(parents=True)
    for export in (champion, old):
        os.utime(export, (time.time() - MONTHS,) * 2)
    clean(keep_days=30, yes=True)
    assert [champion.exists(), old.exists(), recent.exists()] == [True, False, True]


@pytest.mark.slow
def test_files_of_versions_and_of_the_work_tree_stay(folder: Path, capsys: pytest.CaptureFixture[str]):
    clean(keep_days=30, yes=True)  # all of it is recent
    assert capsys.readouterr().out == "Nothing to remove.\n"
    months_pass()
    before = cached()
    clean(keep_days=30, yes=False)
    shown = capsys.readouterr().out
    assert "files in DVC's cache" in shown
    assert "results of stages" in shown
    assert cached() == before
    clean(keep_days=30, yes=True)
    assert {"first", "third"} <= cached()
    assert "second" not in cached()
    assert dvc("status", "--json").strip() == "{}"
    capsys.readouterr()
    clean(keep_days=30, yes=False)
    assert capsys.readouterr().out == "Nothing to remove.\n"
    ran = runs()
    make("first")  # as when the version was registered: restored from the cache with its note
    assert (Path("model/weights").read_text(), Path("note.txt").read_text(), runs()) == ("first", "first\n", ran)
    make("second")
    assert runs() == ran + 2


def test_files_of_branches_and_recent_runs_stay(folder: Path):
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    make("fourth")
    for words in (["add", "dvc.lock", "dvc.yaml"], ["commit", "--quiet", "-m", "fourth"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    make("fifth")
    client = connect()
    run = client.create_run(
        client.get_experiment_by_name("lectern").experiment_id, tags={"data.train.md5": md5(Path("split.txt"))}
    )
    client.set_terminated(run.info.run_id)
    make("sixth")
    months_pass()
    clean(keep_days=30, yes=True)
    assert {"first", "fourth", "fifth", "sixth"} <= cached()
    assert cached().isdisjoint({"second", "third"})


def test_an_interrupted_clean_up_can_be_repeated(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    months_pass()
    count = len([*Path(".dvc/cache").rglob("*")])
    kill_once(lambda: len([*Path(".dvc/cache").rglob("*")]) < count, "clean", "--yes", cwd=folder, streams=tmp_path)
    clean(keep_days=30, yes=True)
    capsys.readouterr()
    clean(keep_days=30, yes=False)
    assert capsys.readouterr().out == "Nothing to remove.\n"
    for content in ("first", "second", "third"):
        make(content)


def test_a_user_at_a_terminal_is_asked(folder: Path):
    months_pass()
    ours, its = pty.openpty()
    for word in ("n", "y"):
        os.write(ours, f"{word}\n".encode())
        command = [sys.executable, "-m", "lectern", "clean"]
        done = subprocess.run(command, stdin=its, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Remove it?" in done.stdout
        assert ("second" in cached()) == (word == "n")


def test_nothing_is_removed_during_a_run(folder: Path):
    months_pass()
    with FileLock(STATE / "train.lock"), pytest.raises(TemporaryFailure, match="at work in this work tree"):
        clean(keep_days=30, yes=True)
    assert "second" in cached()


def test_nothing_is_removed_while_dvc_runs_a_stage(folder: Path):
    months_pass()
    Path("dvc.yaml").write_text(PIPELINE + SLOW, encoding="utf-8")
    with Child([sys.executable, "-m", "dvc", "repro", "--quiet", "slow"], env=os.environ):
        wait_for(Path("started").exists)
        with pytest.raises(TemporaryFailure, match="DVC is at work"):
            clean(keep_days=30, yes=True)
    assert "second" in cached()


def test_a_broken_dvc_configuration_is_reported(folder: Path):
    Path(".dvc/config").write_text("[core\n", encoding="utf-8")
    with pytest.raises(UsageError, match="DVC cannot read the project"):
        clean(keep_days=30, yes=True)


def test_a_shared_cache_stays_unchanged(folder: Path, tmp_path: Path):
    dvc("cache", "dir", str(tmp_path / "shared"))
    for content in ("seventh", "eighth"):
        make(content)
    months_pass()
    for path in (tmp_path / "shared").rglob("*"):
        os.utime(path, (0, 0))
    clean(keep_days=1, yes=True)
    shared = {
        path.read_text(encoding="utf-8").strip() for path in (tmp_path / "shared/files").rglob("*") if path.is_file()
    }
    assert {"seventh", "eighth"} <= shared
