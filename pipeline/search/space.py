"""Define and check the training settings that a search of one model may try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from pydantic import create_model

from pipeline.errors import UsageError
from pipeline.models.checkpoints import ModelSettings
from pipeline.search.settings import Range, SearchSettings
from pipeline.settings import MACHINE_SETTINGS, Settings, check
from pipeline.training.settings import TrainSettings

_NOT_SEARCHABLE = {
    "seed": "a better seed is luck, and does not transfer to other data.",
    "bertscore": "all trials must use the same measure.",
    **dict.fromkeys(MACHINE_SETTINGS, "it does not change the trained weights."),
}


@dataclass(frozen=True)
class Space:
    """Ranges of the searched settings of a model, and the values of its other settings."""

    model: str
    model_settings: ModelSettings
    current: TrainSettings  # the settings in params.yaml
    ranges: dict[str, Range]
    section: str  # the ranges' section of params.yaml, for error messages

    @classmethod
    def of_model(cls, model: str, search: SearchSettings) -> Space:
        """Build and check the space of a model.

        Raises:
            UsageError: A range names no training setting, or contains a value that a trial cannot use. Or the metric
                is not measured.
        """
        model_settings = ModelSettings.read(model)
        space = cls(
            model=model,
            model_settings=model_settings,
            current=TrainSettings.of_model(model, model_settings),
            ranges=search.ranges_of(model),
            section=f"search.ranges (with search.models.{model})" if model in search.models else "search.ranges",
        )
        for name in _NOT_SEARCHABLE.keys() & space.ranges.keys():
            raise UsageError(f"{space.section}.{name} cannot be searched: {_NOT_SEARCHABLE[name]} Remove the range.")
        if search.metric == "bertscore_f1" and space.current.bertscore is None:
            raise UsageError(f"search.metric is bertscore_f1, but '{model}' has no BERTScore: set bertscore in train.")
        for name, values in space.ranges.items():
            for value in values.extremes:
                space._check_value(name, value)
            if values.choices is None and _type_of(name) not in (int, float):
                raise UsageError(f"{space.section}.{name}: this setting has no interval. Write {{choices: […]}}.")
        return space

    @property
    def fixed(self) -> dict[str, Any]:
        """Return the settings that are not searched."""
        return self.current.model_dump(exclude=set(self.ranges))

    @property
    def fixed_affecting_weights(self) -> dict[str, Any]:
        """Return the settings whose change starts a new search, except the ranges and the metric."""
        excluded = {*self.ranges, "bertscore"}
        return {name: value for name, value in self.current.affecting_weights().items() if name not in excluded}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distributions by setting."""
        return {name: values.distribution(integers=_type_of(name) is int) for name, values in self.ranges.items()}

    def values(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Convert Optuna's sample to the searched settings of a trial."""
        return {name: self.ranges[name].from_optuna(value) for name, value in sample.items()}

    def settings(self, sample: Mapping[str, Any]) -> TrainSettings:
        """Convert Optuna's sample to all training settings of a trial.

        Raises:
            UsageError: The sampled values do not fit together.
        """
        settings = check(TrainSettings, {**self.current.model_dump(), **self.values(sample)}, at=self.section)
        self._require_one_process_and_epochs(settings.epochs, settings.processes)
        return settings

    def current_sample(self) -> dict[str, Any] | None:
        """Return the sample for the settings in `params.yaml`, or None if the ranges do not contain them."""
        current = self.current.model_dump()
        sample = {name: values.to_optuna(current[name]) for name, values in self.ranges.items()}
        return None if None in sample.values() else sample

    def _check_value(self, name: str, value: Any) -> None:
        """Check a value for one setting. Combinations are checked in each trial, since other settings change too."""
        settings = {**self.current.model_dump(), name: value}
        if name in TrainSettings.model_fields:
            field = TrainSettings.model_fields[name]
            fields: dict[str, Any] = {name: (field.annotation, field)}
            check(create_model("SingleSetting", __base__=Settings, **fields), {name: value}, at=self.section)
        else:
            check(TrainSettings, settings, at=self.section)
        self._require_one_process_and_epochs(settings["epochs"], settings["processes"])

    def _require_one_process_and_epochs(self, epochs: int, processes: int) -> None:
        if not epochs:
            raise UsageError(
                f"{self.section}: a trial of 0 epochs trains nothing. Set the model's epochs, or a range above 0."
            )
        if processes > 1:
            raise UsageError(
                f"{self.section}: a trial is trained in one process. Set processes to 1. To use several GPUs, start "
                "the same search once per GPU: the searches share their trials."
            )


def format_value(value: object) -> str:
    """Format a setting's value for a terminal."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _type_of(name: str) -> Any:
    return TrainSettings.model_fields[name].annotation
