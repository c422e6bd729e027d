"""Run studies on disk with an objective that trains nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import Trial

from pipeline.search.settings import SearchSettings
from pipeline.search.space import Space
from pipeline.search.study import StudyOnDisk, TrialFailed
from tests.search.small import MODEL, write_params


@pytest.fixture
def study(project: Path) -> StudyOnDisk:
    write_params()
    return _study()


def _study(folder: str = "study", **search: object) -> StudyOnDisk:
    settings = SearchSettings.read().model_copy(update=search)
    return StudyOnDisk(Path(folder), Space.of_model(MODEL, settings), settings)


def _rate(trial: Trial, folder: Path) -> float:
    return trial.params["learning_rate"]


def _states(study: StudyOnDisk) -> list[str]:
    return [trial.state.name for trial in study.trials()]


def test_the_settings_in_params_yaml_are_tried_first(study: StudyOnDisk) -> None:
    study.optimise(_rate, 2)
    assert study.trials()[0].params == study.space.current_sample()


def test_the_settings_in_params_yaml_are_tried_again_after_an_interruption(study: StudyOnDisk) -> None:
    def stop(trial: Trial, folder: Path) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.optimise(stop, 2)
    study.optimise(_rate, 2)
    today = study.space.current_sample()
    assert [trial.params == today for trial in study.trials()] == [True, True, False]


def test_the_settings_in_params_yaml_are_not_tried_again_after_a_failure(study: StudyOnDisk) -> None:
    def first_fails(trial: Trial, folder: Path) -> float:
        if trial.number == 0:
            raise TrialFailed("too large")
        return 1.0

    study.optimise(first_fails, 2)
    assert [trial.params == study.space.current_sample() for trial in study.trials()] == [True, False, False]


def test_a_resumed_study_samples_the_same_trials_as_an_undisturbed_one(study: StudyOnDisk) -> None:
    for wanted in (2, 3, 5):
        _study().optimise(_rate, wanted)
    undisturbed = _study("undisturbed")
    undisturbed.optimise(_rate, 5)
    assert [trial.params for trial in study.trials()] == [trial.params for trial in undisturbed.trials()]


def test_several_processes_share_the_trials(study: StudyOnDisk) -> None:
    def slow(trial: Trial, folder: Path) -> float:
        time.sleep(0.05)
        return _rate(trial, folder)

    workers = [threading.Thread(target=_study().optimise, args=(slow, 6)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert _states(study) == ["COMPLETE"] * 6
    assert len({trial.params["learning_rate"] for trial in study.trials()}) == 6


def test_a_running_trial_is_not_marked_as_failed(study: StudyOnDisk) -> None:
    seen: list[int] = []

    def look(trial: Trial, folder: Path) -> float:
        seen.append(len(_study().fail_killed_trials()))
        return 1.0

    study.optimise(look, 1)
    assert seen == [0]
    assert _states(study) == ["COMPLETE"]


def test_a_failed_trial_is_replaced(study: StudyOnDisk) -> None:
    def second_fails(trial: Trial, folder: Path) -> float:
        if trial.number == 1:
            raise TrialFailed("too large")
        return 1.0

    study.optimise(second_fails, 3)
    assert _states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_study_ends_when_all_trials_fail(study: StudyOnDisk) -> None:
    def fail(trial: Trial, folder: Path) -> float:
        raise TrialFailed("too large")

    study.optimise(fail, 3)
    assert _states(study) == ["FAIL"] * 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_fails_its_trial_and_deletes_the_trials_folder(study: StudyOnDisk, error: type[BaseException]) -> None:
    def stop(trial: Trial, folder: Path) -> float:
        (folder / "checkpoint-1").mkdir()
        raise error

    with pytest.raises(error):
        study.optimise(stop, 2)
    assert _states(study) == ["FAIL"]
    assert not list(Path("study").glob("trial-*"))


@pytest.mark.parametrize(("metric", "best"), [("validation_loss", min), ("rouge1", max)])
def test_a_loss_is_minimised_and_a_score_maximised(
    project: Path, metric: str, best: Callable[[list[float]], float]
) -> None:
    write_params()
    study = _study(metric=metric)
    study.optimise(_rate, 3)
    assert study.best().value == best([trial.value for trial in study.trials()])
