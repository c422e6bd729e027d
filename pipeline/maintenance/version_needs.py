"""Find the runs, models, hashes and commits that registered versions need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import get_results_from_paginated_fn

from pipeline.registry.versions import logged_model_ids


@dataclass(frozen=True)
class Named:
    """Everything that registered versions name. It is never removed."""

    runs: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()  # ids of logged models, which hold the files of versions
    hashes: frozenset[str] = frozenset()  # of workbook, splits and model folder in DVC's cache
    commits: frozenset[str] = frozenset()


def all_versions(client: MlflowClient) -> list[ModelVersion]:
    """Return every version of every registered model on the tracking server."""
    return get_results_from_paginated_fn(
        lambda most, token: client.search_model_versions(max_results=most, page_token=token), max_results_per_page=1000
    )


def named_by(versions: Iterable[ModelVersion]) -> Named:
    """Collect the names in the run, the source and the lineage tags of each version."""
    versions = list(versions)
    return Named(
        runs=frozenset(version.run_id for version in versions if version.run_id),
        models=frozenset(model for version in versions for model in logged_model_ids(version)),
        hashes=frozenset(digest for version in versions for digest in hashes_in(version.tags)),
        commits=frozenset(version.tags["git.commit"] for version in versions if "git.commit" in version.tags),
    )


def hashes_in(tags: Mapping[str, str]) -> frozenset[str]:
    """Return the hashes in tags of a run or a version, such as `data.train.md5`."""
    return frozenset(value for name, value in tags.items() if name.endswith(".md5"))
