"""What the registered versions name, and what else stays for their sake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import get_results_from_paginated_fn

from pipeline.registry.versions import logged_models


@dataclass(frozen=True)
class Named:
    """What some version names. None of it ever goes."""

    runs: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()  # ids of logged models, which hold what a version serves
    hashes: frozenset[str] = frozenset()  # under which DVC keeps workbook, splits and model folder
    commits: frozenset[str] = frozenset()


def all_versions(client: MlflowClient) -> list[ModelVersion]:
    """Every version of every registered model that the tracking server knows."""
    return get_results_from_paginated_fn(
        lambda most, token: client.search_model_versions(max_results=most, page_token=token), max_results_per_page=1000
    )


def named_by(versions: Iterable[ModelVersion]) -> Named:
    """What `versions` name: by their run, their source and the tags of their lineage."""
    versions = list(versions)
    return Named(
        runs=frozenset(version.run_id for version in versions if version.run_id),
        models=frozenset(model for version in versions for model in logged_models(version)),
        hashes=frozenset(digest for version in versions for digest in hashes_in(version.tags)),
        commits=frozenset(version.tags["git.commit"] for version in versions if "git.commit" in version.tags),
    )


def hashes_in(tags: Mapping[str, str]) -> frozenset[str]:
    """The hashes that a run's or a version's tags name, such as `data.train.md5`."""
    return frozenset(value for name, value in tags.items() if name.endswith(".md5"))
