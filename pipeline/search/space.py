"""All trainings that a search of one model may try."""

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

_NOT_SEARCHED = {
    "seed": "a better seed is luck, and does not last.",
    "bertscore": "what trials are measured by is the same for all of them.",
    **dict.fromkeys(MACHINE_SETTINGS, "it changes nothing that a training learns."),
}


@dataclass(frozen=True)
class Space:
    """The ranges over which some knobs of a model's training are searched, and what the others stay at."""

    model: str
    model_settings: ModelSettings
    today: TrainSettings  # as params.yaml has them, without a search
    ranges: dict[str, Range]
    place: str  # of the ranges in params.yaml

    @classmethod
    def of_model(cls, model: str, search: SearchSettings) -> Space:
        """The space of the model of that name.

        Raises:
            UsageError: a range names no knob of `train`, or holds a value that the knob or a trial cannot take; or the
                metric is not measured.
        """
        model_settings = ModelSettings.read(model)
        space = cls(
            model=model,
            model_settings=model_settings,
            today=TrainSettings.of_model(model, model_settings),
            ranges=search.ranges_of(model),
            place=f"search.ranges (with search.models.{model})" if model in search.models else "search.ranges",
        )
        for knob in _NOT_SEARCHED.keys() & space.ranges.keys():
            raise UsageError(f"{space.place}.{knob}: {_NOT_SEARCHED[knob]} Remove it.")
        if search.metric == "bertscore_f1" and space.today.bertscore is None:
            raise UsageError(
                f"search.metric is bertscore_f1, which '{model}' is not measured by: set bertscore in train."
            )
        for knob, values in space.ranges.items():
            for value in values.extremes:
                space._check_alone(knob, value)
            if values.choices is None and _kind(knob) not in (int, float):
                raise UsageError(f"{space.place}.{knob}: nothing lies between its values. Write {{choices: […]}}.")
        return space

    @property
    def fixed(self) -> dict[str, Any]:
        """The knobs that are not searched."""
        return self.today.model_dump(exclude=set(self.ranges))

    @property
    def fixed_of_what_is_learnt(self) -> dict[str, Any]:
        """Those of them that a search may not be gone on with changed; what measures counts with the metric."""
        beside = {*self.ranges, "bertscore"}
        return {knob: value for knob, value in self.today.of_what_is_learnt().items() if knob not in beside}

    def distributions(self) -> dict[str, BaseDistribution]:
        return {knob: values.distribution(whole=_kind(knob) is int) for knob, values in self.ranges.items()}

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The searched knobs of a trial, from what Optuna drew for it."""
        return {knob: self.ranges[knob].value(value) for knob, value in drawn.items()}

    def settings(self, drawn: Mapping[str, Any]) -> TrainSettings:
        """All knobs of a trial.

        Raises:
            UsageError: the values that were drawn do not go together.
        """
        return self._settings(self.values(drawn))

    def drawn_today(self) -> dict[str, Any] | None:
        """What Optuna would have to draw for today's settings; None where the ranges do not hold them."""
        today = self.today.model_dump()
        drawn = {knob: values.drawn(today[knob]) for knob, values in self.ranges.items()}
        return None if None in drawn.values() else drawn

    def _settings(self, values: dict[str, Any]) -> TrainSettings:
        settings = check(TrainSettings, {**self.today.model_dump(), **values}, at=self.place)
        self._require_a_trial(settings.epochs, settings.processes)
        return settings

    def _check_alone(self, knob: str, value: Any) -> None:
        """As the knob itself takes it. What goes together is seen in each trial, since other knobs are drawn too."""
        asked = {**self.today.model_dump(), knob: value}
        if knob in TrainSettings.model_fields:
            field = TrainSettings.model_fields[knob]
            check(
                create_model("Knob", __base__=Settings, **{knob: (field.annotation, field)}),
                {knob: value},
                at=self.place,
            )
        else:
            check(TrainSettings, asked, at=self.place)
        self._require_a_trial(asked["epochs"], asked["processes"])

    def _require_a_trial(self, epochs: int, processes: int) -> None:
        if not epochs:
            raise UsageError(
                f"{self.place}: a trial of 0 epochs trains nothing. Set epochs for the model, or give them a range."
            )
        if processes > 1:
            raise UsageError(
                f"{self.place}: a trial is trained in one process. Set processes to 1; to use several GPUs, run the "
                "same search on each at once: they share its trials."
            )


def _kind(knob: str) -> Any:
    return TrainSettings.model_fields[knob].annotation
