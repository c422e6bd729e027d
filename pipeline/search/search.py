"""Search training settings for one model. Each trial trains the model, and a file suggests the best settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from pipeline.errors import Rejected
from pipeline.evaluation.metrics import epoch_score
from pipeline.models.device import training_device
from pipeline.paths import STATE, TRAINING_SPLITS
from pipeline.registry.lineage import checkpoint_tags, lineage_tags, training_fingerprint
from pipeline.registry.tracking import connect, find_run, search_run
from pipeline.search.settings import SearchSettings
from pipeline.search.space import Space, format_value
from pipeline.search.study import CURRENT, REASON, RUN_ID, StudyOnDisk, database_errors_explained
from pipeline.search.suggestion import Suggestion, suggest
from pipeline.search.trial import STATE_TAG, TrainTrial

log = logging.getLogger(__name__)

_STATE_ORDER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
_TABLE_ROWS = 10


@dataclass(frozen=True)
class SearchResult:
    """Result of a search."""

    finished: int  # number of finished trials
    interrupted: bool  # by Ctrl-C
    table: Table
    suggestion: Suggestion


def search(model: str, wanted: int) -> SearchResult:
    """Start or resume the search for a model until it has `wanted` finished trials in total.

    If something that the trials depend on has changed, such as ranges or splits, a new search starts.

    Args:
        model: The model's name in `params.yaml`.
        wanted: Number of finished trials to reach.

    Raises:
        UsageError: A setting is invalid.
        Rejected: A checkpoint is unavailable, no trial is complete, or the search's database is damaged.
        TemporaryFailure: MLflow does not answer.
    """
    settings = SearchSettings.read()
    space = Space.of_model(model, settings)
    # All trials start from the same weights, even if an alias moves.
    space = replace(space, model_settings=space.model_settings.with_pinned_checkpoint())
    device = training_device(space.current.device)
    start = checkpoint_tags(space.model_settings)
    splits = {split: pd.read_parquet(path) for split, path in TRAINING_SPLITS.items()}
    identity = _identity(settings, space)
    decisive = {**space.fixed_affecting_weights, "search": identity}
    folder = STATE / "search" / f"{model}-{training_fingerprint(space.model_settings, decisive, start)}"
    with database_errors_explained(folder):
        study = StudyOnDisk(folder, space, settings)
        client = connect()
        for trial in study.fail_killed_trials():
            _end_killed_run(client, trial)
        interrupted = False
        if len(study.finished()) < wanted:
            log.info("%s trains on %s", model, device)
            objective = TrainTrial(
                space=space,
                metric=settings.metric,
                score=epoch_score(space.current.bertscore),
                client=client,
                tags={"model": model, "study": study.name, **lineage_tags(), **start, **device.tags()},
                **splits,
            )
            try:
                _run_trials(study, objective, wanted, identity)
            except KeyboardInterrupt:
                interrupted = True
        suggestion = suggest(study)
        if suggestion is None:
            raise KeyboardInterrupt if interrupted else Rejected(_explain_no_result(study))
        suggestion.write()
        return SearchResult(len(study.finished()), interrupted, trials_table(study), suggestion)


def trials_table(study: StudyOnDisk) -> Table:
    """Show the first trials in a table: complete trials, the best first, then pruned ones, then failed ones."""
    trials = study.trials()
    sign = 1 if study.minimises else -1
    ranked = sorted(trials, key=lambda trial: (_STATE_ORDER.index(trial.state), sign * (trial.value or 0.0)))
    shown = f"the first {_TABLE_ROWS} of " if len(trials) > _TABLE_ROWS else ""
    table = Table(title=f"Search {study.name}: {shown}{len(trials)} trials", title_justify="left")
    for column in ("trial", "state", study.metric, *study.space.ranges, "remark"):
        table.add_column(column)
    for trial in ranked[:_TABLE_ROWS]:
        values = study.space.values(trial.params)
        table.add_row(
            str(trial.number),
            trial.state.name.lower(),
            "" if trial.value is None else f"{trial.value:.4f}",
            *(format_value(values.get(name, "")) for name in study.space.ranges),
            _remark(trial),
        )
    return table


def _remark(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return trial.user_attrs.get(REASON, "interrupted")
    return "as in params.yaml" if CURRENT in trial.user_attrs else ""


def _identity(settings: SearchSettings, space: Space) -> dict[str, Any]:
    """Return the search settings whose change starts a new search."""
    identity = {
        **settings.model_dump(include={"metric", "pruning", "seed"}),
        "ranges": {name: values.model_dump(exclude_none=True) for name, values in space.ranges.items()},
    }
    if settings.metric == "bertscore_f1" and space.current.bertscore:
        identity["bertscore"] = space.current.bertscore.model_dump()
    return identity


def _run_trials(study: StudyOnDisk, objective: TrainTrial, wanted: int, identity: dict[str, Any]) -> None:
    """Run the missing trials inside the search's MLflow run, and log the best trial there."""
    with search_run(f"{study.space.model} search", study.run_id, params=identity, tags=objective.tags) as run_id:
        study.run_id = run_id
        try:
            study.optimise(objective, wanted)
        finally:
            best = suggest(study)
            if best:
                _log_best(objective.client, run_id, best)


def _end_killed_run(client: MlflowClient, trial: FrozenTrial) -> None:
    """End the MLflow run of a trial whose process was killed."""
    log.warning("trial %d was killed", trial.number)
    run_id = trial.user_attrs.get(RUN_ID)
    if run_id and find_run(client, run_id):
        client.set_tag(run_id, STATE_TAG, "failed")
        client.set_terminated(run_id, "KILLED")


def _log_best(client: MlflowClient, run_id: str, best: Suggestion) -> None:
    client.log_metric(run_id, f"best.{best.metric}", best.value, step=best.trial)
    # Tags can change when a later trial is better. MLflow's parameters cannot.
    for name, value in {"trial": best.trial, "run_id": best.run_id, **best.train}.items():
        client.set_tag(run_id, f"best.{name}", value)


def _explain_no_result(study: StudyOnDisk) -> str:
    reasons = [trial.user_attrs[REASON] for trial in study.trials() if REASON in trial.user_attrs]
    last = f" The last trial failed: {reasons[-1]}" if reasons else ""
    return f"The search has no complete trial.{last}"
