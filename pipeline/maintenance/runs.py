"""Find MLflow's runs and models that nothing needs, and remove them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import networkx as nx
import yaml
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, LoggedModel, Run, RunStatus, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils import get_results_from_paginated_fn
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.maintenance.removable import Removable, size
from pipeline.maintenance.version_needs import Named, hashes_in
from pipeline.paths import REGISTERED, SEARCHES, TRAINING
from pipeline.registry.tracking import EXPERIMENT


@dataclass(frozen=True)
class RunFacts:
    """The facts about a run that decide whether it is needed."""

    run_id: str
    parent: str | None
    running: bool
    deleted: bool
    last: float  # time of its start or end, whichever is later: seconds since 1970


def unneeded_runs(runs: Iterable[RunFacts], named: Set[str], before: float) -> list[str]:
    """Return the ids of the runs that nothing needs.

    A run, its parents and its children are decided together. All of them stay if one is in `named`. Otherwise the
    deleted ones are removed, and the others stay if one of them is running or started or ended after `before`.
    """
    unneeded: list[str] = []
    for family in _families(runs):
        if any(run.run_id in named for run in family):
            continue
        recent = any((run.running or run.last >= before) and not run.deleted for run in family)
        unneeded += [run.run_id for run in family if run.deleted or not recent]
    return unneeded


def _families(runs: Iterable[RunFacts]) -> list[list[RunFacts]]:
    """Group runs with their parents and children. Tags set by hand may even make two runs each other's parent."""
    by_id = {run.run_id: run for run in runs}
    graph = nx.Graph((run.run_id, run.parent) for run in by_id.values() if run.parent)
    graph.add_nodes_from(by_id)
    return [[by_id[run_id] for run_id in family if run_id in by_id] for family in nx.connected_components(graph)]


@dataclass(frozen=True)
class TrackedItems:
    """The runs and models that can be removed, and the hashes in the lineage of the runs that stay."""

    removable: list[Removable]
    hashes: frozenset[str]


def find_tracked(client: MlflowClient, named: Named, before: float) -> TrackedItems:
    """Find what can be removed from the experiment `lectern`; other experiments on the server are not touched.

    On a tracking server that is reached by http, runs and models are only marked as deleted, as its web page does: they
    can be restored there, and `mlflow gc` on its machine frees the space.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    # Runs that are already deleted on a server are left to `mlflow gc` there.
    runs = _runs(client, experiment, ViewType.ACTIVE_ONLY if _is_remote() else ViewType.ALL)
    unneeded = set(unneeded_runs(map(_facts, runs), named.runs | runs_in_reports(), before))
    kept = [run for run in runs if run.info.run_id not in unneeded]
    running = {run.info.run_id for run in kept if _facts(run).running}
    models = [
        model
        for model in _models(client, experiment)
        if model.model_id not in named.models
        and model.source_run_id not in running
        and model.last_updated_timestamp / 1000 < before
    ]
    removed_runs = [run for run in runs if run.info.run_id in unneeded]
    removable = [
        Removable(
            "MLflow models",
            "no registered version uses them",
            len(models),
            size(_folders(model.artifact_location for model in models)),
            lambda: _remove(client, [], models),
        ),
        Removable(
            "MLflow runs",
            "deleted or old, and in no registered version or report",
            len(removed_runs),
            size(_folders(run.info.artifact_uri for run in removed_runs)),
            lambda: _remove(client, removed_runs, []),
        ),
    ]
    return TrackedItems(removable, frozenset(digest for run in kept for digest in hashes_in(run.data.tags)))


def runs_in_reports() -> frozenset[str]:
    """Return the ids of the runs that files in reports/ name."""
    records = [*TRAINING.glob("*/run.json"), *REGISTERED.parent.glob(REGISTERED.name)]
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in records]
    contents += [yaml.safe_load(path.read_text(encoding="utf-8")) for path in SEARCHES.glob("*.yaml")]
    return frozenset(filter(None, (content.get("run_id") for content in contents)))


def _runs(client: MlflowClient, experiment: str, view: ViewType) -> list[Run]:
    return get_results_from_paginated_fn(
        lambda most, token: client.search_runs([experiment], run_view_type=view, max_results=most, page_token=token),
        max_results_per_page=1000,
    )


def _models(client: MlflowClient, experiment: str) -> list[LoggedModel]:
    return get_results_from_paginated_fn(
        lambda most, token: client.search_logged_models([experiment], max_results=most, page_token=token),
        max_results_per_page=100,
    )


def _facts(run: Run) -> RunFacts:
    return RunFacts(
        run_id=run.info.run_id,
        parent=run.data.tags.get(MLFLOW_PARENT_RUN_ID),
        running=run.info.status == RunStatus.to_string(RunStatus.RUNNING),
        deleted=run.info.lifecycle_stage == LifecycleStage.DELETED,
        last=max(run.info.start_time or 0, run.info.end_time or 0) / 1000,
    )


def _folders(uris: Iterable[str]) -> list[Path]:
    """Return the folders that are on this machine's disk."""
    paths = [Path(unquote(urlsplit(uri).path)) for uri in uris if urlsplit(uri).scheme in ("", "file")]
    return [path for path in paths if path.exists()]


def _remove(client: MlflowClient, runs: Sequence[Run], models: Sequence[LoggedModel]) -> None:
    if _is_remote():
        for run in runs:
            client.delete_run(run.info.run_id)
        for model in models:
            client.delete_logged_model(model.model_id)
        return
    # As `mlflow gc` does. The command itself would remove every deleted run of the database, also those that registered
    # versions need. Files are removed first, so that after an interruption the database still names the rest.
    store = _get_store()
    for run in runs:
        get_artifact_repository(run.info.artifact_uri).delete_artifacts()
        store._hard_delete_run(run.info.run_id)
    for model in models:
        get_artifact_repository(model.artifact_location).delete_artifacts()
        store._hard_delete_logged_model(model.model_id)


def _is_remote() -> bool:
    return mlflow.get_tracking_uri().startswith(("http://", "https://"))
