from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from pipeline.errors import UsageError
from pipeline.search.settings import SearchSettings
from pipeline.search.space import Space
from pipeline.training.settings import TrainSettings
from tests.search.small import MODEL, write_params


def _space(train: dict[str, Any] | None = None, **search: Any) -> Space:
    write_params(train, **search)
    return Space.of_model(MODEL, SearchSettings.read())


@pytest.mark.parametrize(
    ("knob", "values", "said"),
    [
        ("lerning_rate", {"low": 1e-5, "high": 1e-3}, "search.ranges.lerning_rate: Extra inputs"),
        ("learning_rate", {"low": 0.0, "high": 1e-3}, "search.ranges.learning_rate: .*greater than 0"),
        ("learning_rate", {"low": 1e-3, "high": 1e-5}, "search.ranges.learning_rate: .*low <= high"),
        ("learning_rate", {"low": 1e-3}, r"search.ranges.learning_rate: .*write \{low: …, high: …\}"),
        ("learning_rate", {"low": 1e-3, "high": 1e-2, "chioces": [1]}, "search.ranges.learning_rate.chioces"),
        ("weight_decay", {"low": 0.0, "high": 0.1, "log": True}, "search.ranges.weight_decay: .*log"),
        ("batch_size", {"low": 1.5, "high": 8}, "search.ranges.batch_size: .*valid integer"),
        ("batch_size", {"choices": [4, 0]}, "search.ranges.batch_size: .*greater than or equal to 1"),
        ("batch_size", {"choices": []}, "search.ranges.batch_size: .*one or more"),
        ("schedule", {"choices": ["linear", "round"]}, "search.ranges.schedule: .*'round'"),
        ("schedule", {"low": 0, "high": 1}, "search.ranges.schedule: .*'one-cycle'"),
        ("compile", {"low": 0, "high": 1}, "search.ranges.compile: nothing lies between"),
        ("freeze", {"choices": [["embedding"], ["tail"]]}, "search.ranges.freeze.0: .*'tail'"),
        ("epochs", {"low": 0, "high": 3}, "search.ranges: a trial of 0 epochs"),
        ("processes", {"choices": [1, 2]}, "search.ranges: a trial is trained in one process"),
        ("seed", {"low": 1, "high": 3}, "search.ranges.seed: a better seed is luck"),
        ("device", {"choices": ["cpu"]}, "search.ranges.device: it changes nothing"),
        ("checkpoint_minutes", {"low": 1, "high": 3}, "search.ranges.checkpoint_minutes: it changes nothing"),
        ("bertscore", {"choices": [None]}, "search.ranges.bertscore: what trials are measured by"),
    ],
)
def test_a_wrong_range_is_named_with_its_place(project: Path, knob: str, values: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _space(ranges={knob: values})


def test_a_range_may_hold_what_goes_with_some_values_of_another_alone(project: Path) -> None:
    ranges = {
        "optimiser": {"choices": ["adamw", "schedulefreeadamw"]},
        "schedule": {"choices": ["one-cycle", "constant"]},
    }
    space = _space(ranges=ranges)
    drawn = {knob: values.drawn(values.choices[1]) for knob, values in space.ranges.items()}
    assert space.settings(drawn).optimiser == "schedulefreeadamw"


def test_a_score_that_is_not_measured_cannot_be_searched_for(project: Path) -> None:
    with pytest.raises(UsageError, match=r"search\.metric is bertscore_f1, .* set bertscore in train"):
        _space(metric="bertscore_f1")


def test_a_model_that_is_not_trained_cannot_be_searched(project: Path) -> None:
    with pytest.raises(UsageError, match="0 epochs"):
        _space({"epochs": 0})


def test_a_model_has_ranges_of_its_own_beside_those_of_all(project: Path) -> None:
    space = _space(models={MODEL: {"batch_size": {"choices": [2]}, "epochs": {"low": 1, "high": 2}}})
    assert space.ranges.keys() == {"learning_rate", "batch_size", "epochs"}
    assert space.ranges["batch_size"].choices == [2]
    with pytest.raises(UsageError, match=rf"with search.models.{MODEL}\)\.epoch: "):
        _space(models={MODEL: {"epoch": {"low": 1, "high": 2}}})
    with pytest.raises(UsageError, match=r"search\.models: there is no model bart-tny"):
        _space(models={"bart-tny": {"epochs": {"low": 1, "high": 2}}})


def test_whatever_is_drawn_is_fit_for_a_training(project: Path) -> None:
    choices: dict[str, list[Any]] = {"freeze": [[], ["embedding", "encoder"]], "compile": [True, False]}
    space = _space(
        ranges={
            "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
            "epochs": {"low": 1, "high": 4},
            **{knob: {"choices": values} for knob, values in choices.items()},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [space.settings(study.ask(space.distributions()).params) for _ in range(30)]
    assert {settings.epochs for settings in drawn} == {1, 2, 3, 4}
    assert all(1e-5 <= settings.learning_rate <= 1e-2 for settings in drawn)
    # By magnitude: half of them below the middle of the exponents.
    assert 8 <= sum(settings.learning_rate < 10**-3.5 for settings in drawn) <= 22
    for knob, values in choices.items():
        assert all(any(getattr(settings, knob) == value for settings in drawn) for value in values)
    assert all(settings.weight_decay == space.today.weight_decay for settings in drawn)


@pytest.mark.parametrize(
    ("knob", "inside", "outside"),
    [
        ("learning_rate", {"low": 1e-3, "high": 1e-1}, {"low": 1e-1, "high": 1.0}),
        ("weight_decay", {"choices": [0, 0.01]}, {"choices": [0]}),
        ("freeze", {"choices": [["encoder"], []]}, {"choices": [["encoder"]]}),
    ],
)
def test_todays_settings_can_be_drawn_where_the_ranges_hold_them(
    project: Path, knob: str, inside: dict[str, Any], outside: dict[str, Any]
) -> None:
    space = _space(ranges={knob: inside})
    assert space.settings(space.drawn_today()) == space.today
    assert _space(ranges={knob: outside}).drawn_today() is None


def test_the_shipped_ranges_hold_for_every_shipped_model_that_trains(project: Path) -> None:
    search = SearchSettings.read()
    models = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["models"]
    searched = [model for model, entry in models.items() if entry.get("train", {}).get("epochs") != 0]
    assert all(isinstance(Space.of_model(model, search).today, TrainSettings) for model in searched)
