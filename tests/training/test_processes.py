"""Several processes share a training: real ones, over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from pipeline.training.launch import is_first_process
from tests.conftest import ROOT
from tests.training.small import NoDropout, train

ONE_STEP = {"epochs": 1, "schedule": "constant", "warmup": 0.0, "freeze": ["embedding", "encoder"]}


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, env=_environment(), capture_output=True, text=True, check=False
    )


def test_two_processes_take_the_step_that_one_takes_with_twice_the_batch(
    examples: pd.DataFrame, tmp_path: Path
) -> None:
    uneven = examples.assign(title=[title * (1 + i % 3) for i, title in enumerate(examples["title"])]).head(8)
    uneven.to_parquet(tmp_path / "examples.parquet")
    curves, alone = train(uneven, tmp_path / "alone", "bart", callbacks=(NoDropout(),), batch_size=8, **ONE_STEP)
    done = _run(
        *("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tests.training.test_processes"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    together = load_file(tmp_path / "weights.safetensors")
    for name, weights in together.items():
        torch.testing.assert_close(weights, alone[name], rtol=1e-4, atol=1e-5)
    shared = json.loads((tmp_path / "curves.json").read_text(encoding="utf-8"))
    assert shared["validation_loss"] == pytest.approx(curves["validation_loss"].iloc[0], rel=1e-4)
    assert shared["train_loss"] == pytest.approx(curves["train_loss"].iloc[0], rel=1e-4)


def _one_of_two() -> None:
    """What each process does in the test above."""
    examples = pd.read_parquet("examples.parquet")
    curves, weights = train(examples, Path("together"), "bart", callbacks=(NoDropout(),), batch_size=4, **ONE_STEP)
    if is_first_process():
        save_file({name: tensor.clone() for name, tensor in weights.items()}, "weights.safetensors")
        Path("curves.json").write_text(curves.iloc[0].to_json(), encoding="utf-8")


def _project_of_two_processes(project: Path, examples: pd.DataFrame, **model: object) -> None:
    (project / "data/splits").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        examples.to_parquet(project / f"data/splits/{split}.parquet", index=False)
    (project / "data/raw").mkdir()
    (project / "data/raw/sample.xlsx").write_bytes(b"")
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= {"processes": 2, "epochs": 1}
    params["models"]["bart-tiny"] |= model
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def test_a_stage_of_two_processes_leaves_one_run_and_one_model(project: Path, examples: pd.DataFrame) -> None:
    size = {"width": 32, "layers": 1, "heads": 2, "vocabulary": 400}
    _project_of_two_processes(project, examples, scratch=size)
    done = _run("pipeline", "train", "bart-tiny", cwd=project)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("lectern").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_id in (project / "reports/training/bart-tiny/run.json").read_text(encoding="utf-8")
    assert (project / "models/bart-tiny/model.safetensors").is_file()
    assert not [*(project / ".lectern/checkpoints").glob("*")]


def test_what_one_process_refuses_the_stage_refuses(project: Path, examples: pd.DataFrame) -> None:
    _project_of_two_processes(project, examples, checkpoint="no/such/folder", scratch=None)
    done = _run("pipeline", "train", "bart-tiny", cwd=project)
    assert done.returncode == 1
    assert "'no/such/folder' is not a model folder" in done.stderr


if __name__ == "__main__":
    _one_of_two()
