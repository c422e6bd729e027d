"""Suggest the settings of the best trial of a search, and write them into `params.yaml` on request."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml
from optuna.trial import TrialState

from pipeline.files import write_text
from pipeline.json_records import Record
from pipeline.paths import SEARCHES
from pipeline.search.study import CURRENT, RUN_ID, StudyOnDisk
from pipeline.settings import set_params


class Suggestion(Record):
    """Best trial of a search, as in `reports/search/MODEL.yaml`."""

    model: str
    study: str
    metric: str
    bertscore: str | None = None  # model and layer that measure the metric, if it is BERTScore
    value: float  # value of the metric
    today: float | None  # value with the settings of params.yaml when the study started; None without such a trial
    trial: int  # number of the best trial
    run_id: str  # its MLflow run
    trials: dict[str, int]  # state → number of trials
    train: dict[str, Any]  # the suggested training settings

    def as_yaml(self) -> str:
        """Format the settings as they appear in `params.yaml`."""
        return yaml.safe_dump({"models": {self.model: {"train": self.train}}}, sort_keys=False)

    def write(self) -> None:
        """Write `reports/search/MODEL.yaml`."""
        write_text(SEARCHES / f"{self.model}.yaml", yaml.safe_dump(self.model_dump(), sort_keys=False))

    def apply(self) -> None:
        """Write the settings into `params.yaml`.

        Raises:
            UsageError: Other entries share the model's entry through a YAML anchor.
        """
        set_params(["models", self.model, "train"], self.train)


def suggest(study: StudyOnDisk) -> Suggestion | None:
    """Return the settings of the best complete trial, or None if no trial is complete."""
    trials = study.trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        return None
    best = study.best()
    return Suggestion(
        model=study.space.model,
        study=study.name,
        metric=study.metric,
        bertscore=str(study.space.current.bertscore) if study.metric == "bertscore_f1" else None,
        value=best.value,
        today=next((trial.value for trial in complete if CURRENT in trial.user_attrs), None),
        trial=best.number,
        run_id=best.user_attrs[RUN_ID],
        trials=dict(Counter(trial.state.name.lower() for trial in trials)),
        train=study.space.values(best.params),
    )
