"""Look up versions of the registered model by MLflow."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import mlflow
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.utils import get_results_from_paginated_fn

from pipeline.errors import Rejected, UsageError
from pipeline.experiments import main_project
from pipeline.files import make_folder
from pipeline.paths import REGISTRY_LOCK, STATE
from pipeline.registry.registry_database import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from pipeline.models.generation import GenerateSettings

GENERATE_TAG = "model.generate"
"""The tag of a version that holds its generation settings."""

_log = logging.getLogger(__name__)


def list_versions(client: MlflowClient, name: str) -> list[tuple[ModelVersion, list[str]]]:
    """Return every version with its aliases, newest first; an empty list if nothing is registered."""
    registered = find_registered_model(client, name)
    if registered is None:
        return []
    found = get_results_from_paginated_fn(
        lambda most, token: client.search_model_versions(f"name = '{name}'", max_results=most, page_token=token),
        max_results_per_page=1000,
    )
    newest_first = sorted(found, key=lambda version: int(version.version), reverse=True)
    return [
        (version, [alias for alias, number in registered.aliases.items() if int(number) == int(version.version)])
        for version in newest_first
    ]


def nothing_registered(name: str) -> str:
    """Return an error message for a registered model without versions."""
    return (
        f"No version of '{name}' is registered at {mlflow.get_tracking_uri()}. Run `lectern run`. If it finds nothing "
        "to do, the models were registered on another tracking server: run `lectern register`."
    )


def find_served(client: MlflowClient, name: str) -> ModelVersion | None:
    """Return the version that is served: the champion, else the challenger; None if neither exists."""
    return find_by_alias(client, name, CHAMPION) or find_by_alias(client, name, CHALLENGER)


def get_version(client: MlflowClient, name: str, number: int | None) -> ModelVersion:
    """Return the version with that number, or the served version if `number` is None.

    Raises:
        UsageError: no version has that number.
        Rejected: nothing is registered.
    """
    version = find_served(client, name) if number is None else find_by_number(client, name, number)
    if version is None:
        raise Rejected(nothing_registered(name)) if number is None else no_such_version(name, number)
    return version


def get_candidate(client: MlflowClient, name: str, number: int | None) -> tuple[ModelVersion, ModelVersion | None]:
    """Return the version to promote, the challenger if `number` is None, and the champion if there is one.

    Raises:
        UsageError: the version does not exist.
        Rejected: the version is already the champion.
    """
    version = find_by_alias(client, name, CHALLENGER) if number is None else find_by_number(client, name, number)
    if version is None:
        raise no_such_version(name, number)
    champion = find_by_alias(client, name, CHAMPION)
    if champion is not None and champion.version == version.version:
        raise Rejected(f"Version {version.version} of '{name}' is already the champion.")
    return version, champion


def no_such_version(name: str, number: int | None) -> UsageError:
    """Return the error for a number that no version has."""
    missing = "version with the alias challenger" if number is None else f"version {number}"
    return UsageError(f"'{name}' has no {missing}. `lectern models` lists its versions.")


def find_registered_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """Return the registered model of a name, or None."""
    with _none_if_absent():
        return client.get_registered_model(name)
    return None


def find_by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version that has an alias, or None."""
    with _none_if_absent():
        return client.get_model_version_by_alias(name, alias)
    return None


def find_by_number(client: MlflowClient, name: str, number: int) -> ModelVersion | None:
    """Return the version of a number, or None."""
    with _none_if_absent():
        return client.get_model_version(name, str(number))
    return None


@contextmanager
def _none_if_absent() -> Iterator[None]:
    """Suppress MLflow's error for a model, a version or an alias that does not exist."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def logged_model_ids(version: ModelVersion) -> list[str]:
    """Return the ids of the logged models that hold the version's files.

    A version names its logged model in a field of its own, or in the address that it was registered from, such as
    models:/m-1f… or …/models/m-1f…/artifacts.
    """
    return [*filter(None, [version.model_id]), *re.findall(r"\bm-[0-9a-f]{32}\b", version.source or "")]


def settings_of(version: ModelVersion) -> GenerateSettings:
    """Return the version's own generation settings, which apply unless a caller gives others."""
    from pipeline.models.generation import GenerateSettings

    return GenerateSettings.model_validate_json(version.tags[GENERATE_TAG])


@contextmanager
def registry_lock() -> Iterator[None]:
    """Let one process of this project at a time register, promote or roll back a version."""
    make_folder(STATE)
    lock = FileLock(main_project() / REGISTRY_LOCK)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        _log.warning("Waiting: another process registers or promotes a version.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
