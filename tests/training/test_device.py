"""A GPU that torch cannot use stops a training, and each training reports its device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.errors import UsageError
from pipeline.models.checkpoints import Card, ModelSettings, save_model
from pipeline.models.device import training_device
from pipeline.models.generation import open_titler
from pipeline.training.record import read_training
from pipeline.training.settings import TrainSettings
from tests.command import lectern
from tests.models.small import GREEDY, small_model
from tests.training.small import STAGE, environment, fill_project, mlflow_runs

_, MODEL = STAGE

NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *--list-gpus*) {list_gpus} ;;
  *--query-gpu=driver_version*) echo {driver} ;;
  *--query-gpu=compute_cap*) echo {capability} ;;
  *) exit 1 ;;
esac
"""
ONE_GPU = "echo 'GPU 0: NVIDIA H200 (UUID: GPU-5e1f0a4e-0000-0000-0000-000000000000)'"

pytestmark = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU of its own")


@pytest.fixture
def nvidia_smi(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """Install a fake `nvidia-smi`, and return an environment with it on the PATH."""

    def installed(
        list_gpus: str = ONE_GPU, driver: str = "550.54.15", capability: str = "9.0", **variables: str
    ) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("driver")
        program = folder / "nvidia-smi"
        program.write_text(NVIDIA_SMI.format(list_gpus=list_gpus, driver=driver, capability=capability))
        program.chmod(0o755)
        kept = {name: value for name, value in environment().items() if name != "CUDA_VISIBLE_DEVICES"}
        return {**kept, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **variables}

    return installed


@pytest.mark.parametrize(
    ("driver", "capability", "index"),
    [
        ("550.54.15", "9.0", "https://download.pytorch.org/whl/cu126"),
        ("580.65.06", "9.0", "https://download.pytorch.org/whl/cu130"),
        ("580.65.06", "7.0", "https://download.pytorch.org/whl/cu126"),  # CUDA 13 no longer supports this GPU
    ],
)
def test_the_remedy_names_the_build_for_driver_and_gpu(
    driver: str,
    capability: str,
    index: str,
    nvidia_smi: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(driver=driver, capability=capability)["PATH"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.__version__", "2.13.0+cpu")  # the installed build may be another
    with pytest.raises(UsageError) as refusal:
        training_device("auto")
    for part in ("NVIDIA H200", driver, index, "train.device: cpu"):
        assert part in str(refusal.value)


def test_a_gpu_that_torch_cannot_use_stops_a_training(
    project: Path, examples: pd.DataFrame, nvidia_smi: Callable[..., dict[str, str]]
) -> None:
    fill_project(project, examples, epochs=1)
    done = lectern(*STAGE, cwd=project, env=nvidia_smi())
    assert done.returncode == 2, done.stderr
    assert "NVIDIA H200" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "models" / MODEL).exists()
    assert MlflowClient().get_experiment_by_name("lectern") is None


def test_an_unusable_gpu_in_the_environment_stops_a_training(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, epochs=1)
    done = lectern(*STAGE, cwd=project, env={**environment(), "CUDA_VISIBLE_DEVICES": "0"})
    assert done.returncode == 2, done.stderr
    assert "CUDA_VISIBLE_DEVICES=0" in done.stderr
    assert "train.device: cpu" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "variables"), [({"device": "cpu"}, {}), ({}, {"CUDA_VISIBLE_DEVICES": "-1"})])
def test_a_training_on_the_cpu_reports_its_device_and_precision_once(
    project: Path,
    examples: pd.DataFrame,
    nvidia_smi: Callable[..., dict[str, str]],
    settings: dict[str, str],
    variables: dict[str, str],
) -> None:
    fill_project(project, examples, epochs=1, **settings)
    done = lectern(*STAGE, cwd=project, env=nvidia_smi(**variables))
    assert done.returncode == 0, done.stderr
    (report,) = [line for line in (done.stdout + done.stderr).splitlines() if "trains on" in line]
    assert report.startswith(f"{MODEL} trains on CPU")
    assert "GiB" in report
    assert "float32" in report
    (run,) = mlflow_runs(MlflowClient())
    expected = {"device": "CPU", "device.precision": "float32"}
    lineage = read_training(MODEL).run.lineage
    for tags in (run.data.tags, lineage):
        assert {name: tags[name].partition(",")[0] for name in expected} == expected
        assert tags["device.memory"].endswith("GiB")


def test_a_failing_driver_is_reported_and_stops_nothing(
    project: Path, examples: pd.DataFrame, nvidia_smi: Callable[..., dict[str, str]]
) -> None:
    fill_project(project, examples, epochs=1)
    broken = "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9"
    done = lectern(*STAGE, cwd=project, env=nvidia_smi(list_gpus=broken))
    assert done.returncode == 0, done.stderr
    assert "could not communicate with the NVIDIA driver" in done.stderr


def test_settings_of_the_machine_do_not_affect_the_weights(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, epochs=1)
    first = settings_affecting_weights()
    fill_project(project, examples, epochs=1, device="cpu", report_to=["tensorboard"], micro_batch_tokens=60)
    assert settings_affecting_weights() == first


def test_titles_are_generated_on_the_cpu_with_one_warning_if_torch_cannot_use_the_gpu(
    tmp_path: Path,
    examples: pd.DataFrame,
    nvidia_smi: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, inputs = small_model("t5", examples)
    card = Card(model="small", family="t5", checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    save_model(tmp_path, model, inputs.tokenizer, card, "float32")
    monkeypatch.setenv("PATH", nvidia_smi()["PATH"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for _ in range(2):
        assert open_titler(tmp_path, GREEDY).model.device.type == "cpu"
    assert caplog.text.count("https://download.pytorch.org/whl/cu126") == 1


def settings_affecting_weights() -> dict[str, object]:
    return TrainSettings.of_model(MODEL, ModelSettings.read(MODEL)).affecting_weights()
