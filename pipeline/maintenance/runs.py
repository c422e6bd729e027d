"""Which of MLflow's runs and models may go, and their going."""

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

from pipeline.maintenance.removable import Pile, size
from pipeline.maintenance.versions import Named, hashes_in
from pipeline.paths import REGISTERED, SEARCHES, TRAINING
from pipeline.registry.tracking import EXPERIMENT


@dataclass(frozen=True)
class RunFacts:
    """What decides over a run."""

    run_id: str
    parent: str | None
    running: bool
    deleted: bool
    last: float  # when it began or ended, seconds since 1970


def runs_that_may_go(runs: Iterable[RunFacts], named: Set[str], before: float) -> list[str]:
    """The ids of runs that nothing needs.

    Runs above and below one another stand or fall together. They stay if one is named, and else if one that is not
    deleted is running or has begun or ended since `before`; what somebody has deleted goes, unless one is named.
    """
    going: list[str] = []
    for family in _families(runs):
        if any(run.run_id in named for run in family):
            continue
        recent = any((run.running or run.last >= before) and not run.deleted for run in family)
        going += [run.run_id for run in family if run.deleted or not recent]
    return going


def _families(runs: Iterable[RunFacts]) -> list[list[RunFacts]]:
    """`runs`, those that parents join together in one list; a tag set by hand may also make two each other's parent."""
    by_id = {run.run_id: run for run in runs}
    graph = nx.Graph((run.run_id, run.parent) for run in by_id.values() if run.parent)
    graph.add_nodes_from(by_id)
    return [[by_id[run_id] for run_id in family if run_id in by_id] for family in nx.connected_components(graph)]


@dataclass(frozen=True)
class Tracked:
    """What is to go of the experiment's runs and models, and the hashes that the runs which stay name."""

    piles: list[Pile]
    hashes: frozenset[str]


def tracked(client: MlflowClient, named: Named, before: float) -> Tracked:
    """Of the experiment `lectern`; what others keep on the same tracking server is not ours.

    Of a tracking server that is reached by http, things are deleted as its own pages do it: they can be restored there,
    and `mlflow gc` on its machine frees their room.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    # What is deleted there already is the server's own to remove.
    runs = _runs(client, experiment, ViewType.ACTIVE_ONLY if _is_remote() else ViewType.ALL)
    going = set(runs_that_may_go(map(_facts, runs), named.runs | runs_in_reports(), before))
    stay = [run for run in runs if run.info.run_id not in going]
    running = {run.info.run_id for run in stay if _facts(run).running}
    models = [
        model
        for model in _models(client, experiment)
        if model.model_id not in named.models
        and model.source_run_id not in running
        and model.last_updated_timestamp / 1000 < before
    ]
    piles = [
        Pile(
            "MLflow models",
            "no registered version is made of them",
            len(models),
            size(_folders(model.artifact_location for model in models)),
            lambda: _remove(client, [], models),
        ),
        Pile(
            "MLflow runs",
            "deleted or old, and of no registered version or report",
            len(going),
            size(_folders(run.info.artifact_uri for run in runs if run.info.run_id in going)),
            lambda: _remove(client, [run for run in runs if run.info.run_id in going], []),
        ),
    ]
    return Tracked(piles, frozenset(digest for run in stay for digest in hashes_in(run.data.tags)))


def runs_in_reports() -> frozenset[str]:
    """The runs that the files in reports/ name."""
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
    """Those on this machine's disk."""
    paths = [Path(unquote(urlsplit(uri).path)) for uri in uris if urlsplit(uri).scheme in ("", "file")]
    return [path for path in paths if path.exists()]


def _remove(client: MlflowClient, runs: Sequence[Run], models: Sequence[LoggedModel]) -> None:
    if _is_remote():
        for run in runs:
            client.delete_run(run.info.run_id)
        for model in models:
            client.delete_logged_model(model.model_id)
        return
    # As `mlflow gc` does it. The command itself would also remove whatever else is deleted in that database, with no
    # regard for registered versions. The files go first: where that is cut off, the rest is found again.
    store = _get_store()
    for run in runs:
        get_artifact_repository(run.info.artifact_uri).delete_artifacts()
        store._hard_delete_run(run.info.run_id)
    for model in models:
        get_artifact_repository(model.artifact_location).delete_artifacts()
        store._hard_delete_logged_model(model.model_id)


def _is_remote() -> bool:
    return mlflow.get_tracking_uri().startswith(("http://", "https://"))
