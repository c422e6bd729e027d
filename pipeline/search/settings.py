"""What a search tries and what it is after: the `search` section of `params.yaml`."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, model_validator

from pipeline.errors import UsageError
from pipeline.settings import Section, Settings, read_params


class Range(Settings):
    """The values that a knob may take: all between two ends, or one of some choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False  # drawn evenly by magnitude
    choices: list[Any] | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Range:
        if len({self.low is None, self.high is None, self.choices is not None}) > 1:
            raise ValueError("write {low: …, high: …} or {choices: […]}")
        self.distribution(whole=False)  # Optuna says what else is wrong
        return self

    @property
    def extremes(self) -> list[Any]:
        """Values of it: a knob that can take these can take all."""
        return [self.low, self.high] if self.choices is None else self.choices

    def distribution(self, *, whole: bool) -> BaseDistribution:
        """What Optuna draws from; `whole` numbers only, if it is to."""
        if self.choices is not None:
            return CategoricalDistribution([json.dumps(choice) for choice in self.choices])  # it keeps no lists
        if whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, drawn: float | str) -> Any:
        """The knob's value that Optuna's stands for."""
        return drawn if self.choices is None else json.loads(drawn)

    def drawn(self, value: Any) -> float | str | None:
        """Optuna's value for the knob's; None where the range does not hold it."""
        if self.choices is not None:
            return json.dumps(self.choices[self.choices.index(value)]) if value in self.choices else None
        return value if self.low <= value <= self.high else None


class Pruning(Settings):
    """A trial worse than the median of the others after as many epochs ends early."""

    startup_trials: int = Field(ge=1)  # that complete before any is pruned
    after_epochs: int = Field(ge=1)  # that every trial is given


class SearchSettings(Section):
    section: ClassVar[str] = "search"

    metric: Literal["validation_loss", "rouge1", "rouge2", "rougeL", "rougeLsum", "bertscore_f1"]
    ranges: dict[str, Range] = Field(min_length=1)  # by knob of `train`
    models: dict[str, dict[str, Range]] = {}  # what a model has otherwise
    pruning: Pruning | None = None  # None: every trial is trained to its end
    seed: int = Field(ge=0)

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        return "minimize" if self.metric == "validation_loss" else "maximize"

    def ranges_of(self, model: str) -> dict[str, Range]:
        """The ranges, with what the model named `model` has otherwise.

        Raises:
            UsageError: some other model that the section names does not exist.
        """
        unknown = sorted(self.models.keys() - (read_params().get("models") or {}).keys())
        if unknown:
            raise UsageError(f"params.yaml, search.models: there is no model {', '.join(unknown)} under 'models'.")
        return {**self.ranges, **self.models.get(model, {})}
