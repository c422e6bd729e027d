"""Real processes share a training over gloo."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from pipeline.registry.lineage import md5
from pipeline.training.multi_gpu import is_first_process
from tests.command import kill_once, lectern, processes_in, run_module
from tests.training.small import (
    MINILM,
    STAGE,
    Killed,
    NoDropout,
    environment,
    fill_project,
    kill_after_a_checkpoint,
    mlflow_runs,
    train,
)

ONE_STEP = {"epochs": 1, "schedule": "constant", "warmup": 0.0, "freeze": ["embedding", "encoder"]}


@pytest.mark.hard
def test_a_step_of_two_processes_equals_one_with_twice_the_batch(examples: pd.DataFrame, tmp_path: Path) -> None:
    uneven = examples.assign(title=[title * (1 + i % 3) for i, title in enumerate(examples["title"])]).head(8)
    uneven.to_parquet(tmp_path / "examples.parquet")
    curves, alone = train(uneven, tmp_path / "alone", "bart", callbacks=(NoDropout(),), batch_size=8, **ONE_STEP)
    done = run_module(
        *("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tests.training.test_multi_gpu"),
        cwd=tmp_path,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    together = load_file(tmp_path / "weights.safetensors")
    for name, weights in together.items():
        torch.testing.assert_close(weights, alone[name], rtol=1e-4, atol=1e-5)
    shared = json.loads((tmp_path / "curves.json").read_text(encoding="utf-8"))
    assert shared["validation_loss"] == pytest.approx(curves["validation_loss"].iloc[0], rel=1e-4)
    assert shared["train_loss"] == pytest.approx(curves["train_loss"].iloc[0], rel=1e-4)


@pytest.mark.hard
def test_two_processes_interrupted_within_an_epoch_end_with_the_same_weights(
    examples: pd.DataFrame, tmp_path: Path
) -> None:
    examples.to_parquet(tmp_path / "examples.parquet")
    done = run_module(
        *("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tests.training.test_multi_gpu"),
        "interrupted",
        cwd=tmp_path,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    undisturbed, resumed = (load_file(tmp_path / f"{name}.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)


def _one_of_two_that_are_interrupted() -> None:
    """Run as each process of the test of an interruption."""
    examples = pd.read_parquet("examples.parquet")
    chosen = {"batch_size": 2, "epochs": 2, "checkpoint_minutes": 0}
    with pytest.raises(KeyboardInterrupt):
        train(examples, Path("killed"), callbacks=(Killed(step=7),), **chosen)
    assert Path("killed/run/checkpoint-6").is_dir()
    for name in ("undisturbed", "killed"):
        _, weights = train(examples, Path(name), **chosen)
        if is_first_process():
            save_file({key: tensor.clone() for key, tensor in weights.items()}, f"{name}.safetensors")


def _one_of_two() -> None:
    """Run as each process of the test of one step."""
    examples = pd.read_parquet("examples.parquet")
    curves, weights = train(examples, Path("together"), "bart", callbacks=(NoDropout(),), batch_size=4, **ONE_STEP)
    if is_first_process():
        save_file({name: tensor.clone() for name, tensor in weights.items()}, "weights.safetensors")
        Path("curves.json").write_text(curves.iloc[0].to_json(), encoding="utf-8")


@pytest.mark.slow
def test_a_stage_of_two_processes_leaves_one_run_and_one_model(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, processes=2, epochs=1, bertscore=MINILM)
    examples.head(1).to_parquet(project / "data/splits/validation.parquet")  # so one process has no example
    done = lectern(*STAGE, cwd=project, env=environment())
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (run,) = mlflow_runs(client)
    assert run.info.status == "FINISHED"
    assert run.info.run_id in (project / "reports/training/bart-tiny/run.json").read_text(encoding="utf-8")
    assert (project / "models/bart-tiny/model.safetensors").is_file()
    assert "bertscore_f1" in (project / "reports/training/bart-tiny/curves.csv").read_text(encoding="utf-8")
    assert not [*(project / ".lectern/checkpoints").glob("*")]


@pytest.mark.slow
def test_a_refusal_in_one_process_ends_the_stage(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, {"checkpoint": "no/such/folder", "scratch": None}, processes=2)
    done = lectern(*STAGE, cwd=project, env=environment())
    assert done.returncode == 1
    assert "'no/such/folder' is not a model folder" in done.stderr


@pytest.mark.slow
def test_all_processes_end_when_their_launcher_is_killed(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, pd.concat([examples] * 40), processes=2, epochs=100)
    kill_after_a_checkpoint(project)
    deadline = time.monotonic() + 30
    while left := processes_in(project):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [pytest.param(signal.SIGINT, marks=pytest.mark.hard), signal.SIGTERM])
def test_all_processes_end_when_their_launcher_gets_a_signal(
    sent: signal.Signals, project: Path, examples: pd.DataFrame
) -> None:
    fill_project(project, pd.concat([examples] * 40), processes=2, epochs=100)
    (streams := project / "streams").mkdir()
    code = kill_once(
        lambda: [*project.glob(".lectern/checkpoints/*/checkpoint-*")],
        *STAGE,
        cwd=project,
        env=environment(),
        streams=streams,
        by=sent,
    )
    assert code == 128 + sent
    assert "Traceback" not in (streams / "2").read_text(encoding="utf-8")
    assert not processes_in(project)


def test_another_number_of_processes_than_in_the_settings_is_refused(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, processes=1)
    started_by_torchrun = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    done = lectern(*STAGE, cwd=project, env={**environment(), **started_by_torchrun})
    assert done.returncode == 2
    assert "2 processes were started, but params.yaml has processes: 1 for 'bart-tiny'" in done.stderr


@pytest.mark.hard
@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "--mixed_precision", "bf16"),
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_the_stage_runs_under_other_launchers_too(
    launcher: tuple[str, ...], project: Path, examples: pd.DataFrame
) -> None:
    fill_project(project, examples, processes=2, epochs=1, precision="float32")
    done = run_module(*launcher, "-m", "pipeline", *STAGE, cwd=project, env=environment())
    assert done.returncode == 0, done.stderr
    under_another = md5(project / "models/bart-tiny")
    shutil.rmtree(project / "models")
    done = lectern(*STAGE, cwd=project, env=environment())
    assert done.returncode == 0, done.stderr
    assert md5(project / "models/bart-tiny") == under_another


if __name__ == "__main__":
    _one_of_two_that_are_interrupted() if "interrupted" in sys.argv else _one_of_two()
