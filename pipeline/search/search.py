"""Searches the knobs of one model's training: a study on disk, a training a trial, a suggestion in the end."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from optuna.trial import FrozenTrial
from rich.table import Table

from pipeline.errors import Rejected
from pipeline.evaluation.metrics import epoch_score
from pipeline.models.device import training_device
from pipeline.paths import STATE, TRAINING_SPLITS
from pipeline.registry.lineage import lineage_tags
from pipeline.registry.tracking import connect, find_run, search_run
from pipeline.registry.training_fingerprint import checkpoint_tags, training_fingerprint
from pipeline.search.settings import SearchSettings
from pipeline.search.space import Space
from pipeline.search.study import REASON, RUN_ID, StudyOnDisk, errors_of
from pipeline.search.suggestion import Suggestion, suggest
from pipeline.search.tables import trials_table
from pipeline.search.trial import STATE_TAG, TrainTrial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What a search has come to."""

    finished: int  # trials
    interrupted: bool  # by Ctrl-C
    table: Table
    suggestion: Suggestion


def search(model: str, wanted: int) -> Found:
    """Goes on with the search for the model of that name until `wanted` trials are finished in all.

    With anything else that its trials depend on, such as ranges or splits, it is another search and begins anew.

    Raises:
        UsageError: the settings are wrong.
        Rejected: the model's checkpoint, or BERTScore's, cannot be had, no trial is complete, or the search is damaged.
        TemporaryFailure: MLflow stays away.
    """
    settings = SearchSettings.read()
    space = Space.of_model(model, settings)
    space = replace(space, model_settings=space.model_settings.pinned())  # all trials start from the same weights
    device = training_device(space.today.device)
    start = checkpoint_tags(space.model_settings)
    splits = {split: pd.read_parquet(path) for split, path in TRAINING_SPLITS.items()}
    asked = _asked(settings, space)
    fingerprint = training_fingerprint(space.model_settings, {**space.fixed_of_what_is_learnt, "search": asked}, start)
    folder = STATE / "search" / f"{model}-{fingerprint}"
    with errors_of(folder):
        study = StudyOnDisk(folder, space, settings)
        client = connect()
        for trial in study.fail_lost():
            _end_lost_run(client, trial)
        interrupted = False
        if len(study.finished()) < wanted:
            log.info("%s trains on %s", model, device)
            objective = TrainTrial(
                space=space,
                metric=settings.metric,
                score=epoch_score(space.today.bertscore),
                client=client,
                tags={"model": model, "study": study.name, **lineage_tags(), **start, **device.tags()},
                **splits,
            )
            try:
                _go_on(study, objective, wanted, asked)
            except KeyboardInterrupt:
                interrupted = True
        suggestion = suggest(study)
        if suggestion is None:
            raise KeyboardInterrupt if interrupted else Rejected(_nothing_found(study))
        suggestion.write()
        return Found(len(study.finished()), interrupted, trials_table(study), suggestion)


def _asked(settings: SearchSettings, space: Space) -> dict[str, Any]:
    """What makes a search another one, beside what each of its trials depends on."""
    asked = {
        **settings.model_dump(include={"metric", "pruning", "seed"}),
        "ranges": {knob: values.model_dump(exclude_none=True) for knob, values in space.ranges.items()},
    }
    if settings.metric == "bertscore_f1":
        asked["bertscore"] = space.today.bertscore.model_dump()
    return asked


def _go_on(study: StudyOnDisk, objective: TrainTrial, wanted: int, asked: dict[str, Any]) -> None:
    """Runs what is missing of the trials, under the search's own MLflow run, which carries the best of them."""
    with search_run(f"{study.space.model} search", study.run_id, params=asked, tags=objective.tags) as run_id:
        study.run_id = run_id
        try:
            study.optimise(objective, wanted)
        finally:
            best = suggest(study)
            if best:
                _log_best(objective.client, run_id, best)


def _end_lost_run(client: MlflowClient, trial: FrozenTrial) -> None:
    """What the trial's process could not do any more."""
    log.warning("trial %d was killed", trial.number)
    run_id = trial.user_attrs.get(RUN_ID)
    if run_id and find_run(client, run_id):
        client.set_tag(run_id, STATE_TAG, "failed")
        client.set_terminated(run_id, "KILLED")


def _log_best(client: MlflowClient, run_id: str, best: Suggestion) -> None:
    client.log_metric(run_id, f"best.{best.metric}", best.value, step=best.trial)
    # Tags, since the best may be another one later, and MLflow's parameters stay what they were.
    for name, value in {"trial": best.trial, "run_id": best.run_id, **best.train}.items():
        client.set_tag(run_id, f"best.{name}", value)


def _nothing_found(study: StudyOnDisk) -> str:
    reasons = [trial.user_attrs[REASON] for trial in study.trials() if REASON in trial.user_attrs]
    return " ".join(["No trial is complete.", *(f"The last one failed: {reason}" for reason in reasons[-1:])])
