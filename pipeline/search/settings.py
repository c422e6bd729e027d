"""Search settings: the section `search` of `params.yaml`."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, model_validator

from pipeline.errors import UsageError
from pipeline.settings import Section, Settings, read_params


class Range(Settings):
    """Values that a search tries for one setting: an interval, or a list of choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False  # sample the interval on a logarithmic scale
    choices: list[Any] | None = None

    @model_validator(mode="after")
    def _interval_or_choices(self) -> Range:
        if len({self.low is None, self.high is None, self.choices is not None}) > 1:
            raise ValueError("write {low: …, high: …} or {choices: […]}")
        self.distribution(integers=False)  # Optuna finds all other mistakes
        return self

    @property
    def extremes(self) -> list[Any]:
        """Return the values to check: a setting that accepts these accepts all values of the range."""
        return [self.low, self.high] if self.choices is None else self.choices

    def distribution(self, *, integers: bool) -> BaseDistribution:
        """Return Optuna's distribution for the range."""
        if self.choices is not None:
            return CategoricalDistribution([json.dumps(choice) for choice in self.choices])  # Optuna stores no lists
        low, high = self._interval()
        if integers:
            return IntDistribution(int(low), int(high), log=self.log)
        return FloatDistribution(low, high, log=self.log)

    def from_optuna(self, sample: Any) -> Any:
        """Convert a sample of Optuna to the setting's value."""
        return sample if self.choices is None else json.loads(sample)

    def to_optuna(self, value: Any) -> float | str | None:
        """Convert a setting's value to Optuna's sample. Return None if the range does not contain it."""
        if self.choices is not None:
            return json.dumps(self.choices[self.choices.index(value)]) if value in self.choices else None
        low, high = self._interval()
        return value if low <= value <= high else None

    def _interval(self) -> tuple[float, float]:
        if self.low is None or self.high is None:
            raise ValueError("a range of choices has no interval")
        return self.low, self.high


class Pruning(Settings):
    """End a trial early if it is worse than the median of the others after the same number of epochs."""

    startup_trials: int = Field(ge=1)  # complete trials before any trial is pruned
    after_epochs: int = Field(ge=1)  # epochs that each trial trains at least


class SearchSettings(Section):
    """Settings of `lectern search`."""

    section: ClassVar[str] = "search"

    metric: Literal["validation_loss", "rouge1", "rouge2", "rougeL", "rougeLsum", "bertscore_f1"]
    ranges: dict[str, Range] = Field(min_length=1)  # by name of a training setting
    models: dict[str, dict[str, Range]] = Field(
        default={}, description="ranges of one model, as `MODEL: {SETTING: RANGE}`"
    )
    pruning: Pruning | None = None  # None trains each trial to its end
    seed: int = Field(default=1, ge=0, description="of the choice of values")

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Return Optuna's name for the direction of the metric."""
        return "minimize" if self.metric == "validation_loss" else "maximize"

    def ranges_of(self, model: str) -> dict[str, Range]:
        """Return the ranges for a model: its own ranges override the common ones.

        Raises:
            UsageError: The section names a model that does not exist.
        """
        unknown = sorted(self.models.keys() - (read_params().get("models") or {}).keys())
        if unknown:
            raise UsageError(f"params.yaml, search.models: there is no model {', '.join(unknown)} under 'models'.")
        return {**self.ranges, **self.models.get(model, {})}
