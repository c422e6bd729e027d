"""What a search suggests: the best trial's knobs, for a person to put into `params.yaml`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml
from optuna.trial import TrialState
from pydantic import BaseModel, ConfigDict

from pipeline.files import write_text
from pipeline.paths import SEARCHES
from pipeline.search.study import RUN_ID, TODAY, StudyOnDisk
from pipeline.settings import set_params


class Suggestion(BaseModel):
    """reports/search/MODEL.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    study: str
    metric: str
    bertscore: str | None = None  # by whom that is measured, where it is the metric
    value: float  # of the metric
    today: float | None  # of the settings that params.yaml had when the study began; None if they were no trial
    trial: int
    run_id: str  # of MLflow
    trials: dict[str, int]  # state → how many
    train: dict[str, Any]  # the knobs to set

    def as_yaml(self) -> str:
        """Where and how the knobs stand in `params.yaml`."""
        return yaml.safe_dump({"models": {self.model: {"train": self.train}}}, sort_keys=False)

    def write(self) -> None:
        write_text(SEARCHES / f"{self.model}.yaml", yaml.safe_dump(self.model_dump(), sort_keys=False))

    def apply(self) -> None:
        """Writes the knobs into `params.yaml`.

        Raises:
            UsageError: other entries would change with this one.
        """
        set_params(["models", self.model, "train"], self.train)


def suggest(study: StudyOnDisk) -> Suggestion | None:
    """The knobs of the best trial that is complete; None where none is."""
    found = study.trials()
    complete = [trial for trial in found if trial.state == TrialState.COMPLETE]
    if not complete:
        return None
    best = study.best()
    return Suggestion(
        model=study.space.model,
        study=study.name,
        metric=study.metric,
        bertscore=str(study.space.today.bertscore) if study.metric == "bertscore_f1" else None,
        value=best.value,
        today=next((trial.value for trial in complete if TODAY in trial.user_attrs), None),
        trial=best.number,
        run_id=best.user_attrs[RUN_ID],
        trials=dict(Counter(trial.state.name.lower() for trial in found)),
        train=study.space.values(best.params),
    )
