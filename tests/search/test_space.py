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
    ("name", "values", "message"),
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
        ("compile", {"low": 0, "high": 1}, "search.ranges.compile: this setting has no interval"),
        ("freeze", {"choices": [["embedding"], ["tail"]]}, "search.ranges.freeze.0: .*'tail'"),
        ("epochs", {"low": 0, "high": 3}, "search.ranges: a trial of 0 epochs"),
        ("processes", {"choices": [1, 2]}, "search.ranges: a trial is trained in one process"),
        ("seed", {"low": 1, "high": 3}, "search.ranges.seed cannot be searched: a better seed is luck"),
        ("device", {"choices": ["cpu"]}, "search.ranges.device cannot be searched"),
        (
            "checkpoint_minutes",
            {"low": 1, "high": 3},
            "search.ranges.checkpoint_minutes cannot be searched: it does not change",
        ),
        ("bertscore", {"choices": [None]}, "search.ranges.bertscore cannot be searched: all trials must use"),
    ],
)
def test_the_error_for_a_wrong_range_names_its_setting(project: Path, name: str, values: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _space(ranges={name: values})


def test_a_range_may_contain_values_that_need_certain_other_values(project: Path) -> None:
    ranges = {
        "optimiser": {"choices": ["adamw", "schedulefreeadamw"]},
        "schedule": {"choices": ["one-cycle", "constant"]},
    }
    space = _space(ranges=ranges)
    drawn = {name: values.to_optuna(values.choices[1]) for name, values in space.ranges.items()}
    assert space.settings(drawn).optimiser == "schedulefreeadamw"


def test_a_score_that_is_not_measured_cannot_be_the_metric(project: Path) -> None:
    with pytest.raises(UsageError, match=r"search\.metric is bertscore_f1, .* set bertscore in train"):
        _space(metric="bertscore_f1")


def test_a_model_that_is_not_trained_cannot_be_searched(project: Path) -> None:
    with pytest.raises(UsageError, match="0 epochs"):
        _space({"epochs": 0})


def test_a_models_own_ranges_override_the_common_ones(project: Path) -> None:
    space = _space(models={MODEL: {"batch_size": {"choices": [2]}, "epochs": {"low": 1, "high": 2}}})
    assert space.ranges.keys() == {"learning_rate", "batch_size", "epochs"}
    assert space.ranges["batch_size"].choices == [2]
    with pytest.raises(UsageError, match=rf"with search.models.{MODEL}\)\.epoch: "):
        _space(models={MODEL: {"epoch": {"low": 1, "high": 2}}})
    with pytest.raises(UsageError, match=r"search\.models: there is no model bart-tny"):
        _space(models={"bart-tny": {"epochs": {"low": 1, "high": 2}}})


def test_all_samples_are_valid_training_settings(project: Path) -> None:
    choices: dict[str, list[Any]] = {"freeze": [[], ["embedding", "encoder"]], "compile": [True, False]}
    space = _space(
        ranges={
            "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
            "epochs": {"low": 1, "high": 4},
            **{name: {"choices": values} for name, values in choices.items()},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [space.settings(study.ask(space.distributions()).params) for _ in range(30)]
    assert {settings.epochs for settings in drawn} == {1, 2, 3, 4}
    assert all(1e-5 <= settings.learning_rate <= 1e-2 for settings in drawn)
    # On a logarithmic scale, half of the samples are below the middle exponent.
    assert 8 <= sum(settings.learning_rate < 10**-3.5 for settings in drawn) <= 22
    for name, values in choices.items():
        assert all(any(getattr(settings, name) == value for settings in drawn) for value in values)
    assert all(settings.weight_decay == space.current.weight_decay for settings in drawn)


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("learning_rate", {"low": 1e-3, "high": 1e-1}, {"low": 1e-1, "high": 1.0}),
        ("weight_decay", {"choices": [0, 0.01]}, {"choices": [0]}),
        ("freeze", {"choices": [["encoder"], []]}, {"choices": [["encoder"]]}),
    ],
)
def test_the_settings_in_params_yaml_are_a_sample_if_the_ranges_contain_them(
    project: Path, name: str, inside: dict[str, Any], outside: dict[str, Any]
) -> None:
    space = _space(ranges={name: inside})
    assert space.settings(space.current_sample()) == space.current
    assert _space(ranges={name: outside}).current_sample() is None


def test_the_shipped_ranges_fit_all_shipped_models_that_train(project: Path) -> None:
    search = SearchSettings.read()
    models = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["models"]
    searched = [model for model, entry in models.items() if entry.get("train", {}).get("epochs") != 0]
    assert all(isinstance(Space.of_model(model, search).current, TrainSettings) for model in searched)
