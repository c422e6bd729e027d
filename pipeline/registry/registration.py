"""Register a trained model as a version that MLflow can serve."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models.model import ModelInfo

from pipeline.registry.registry_database import CHALLENGER
from pipeline.registry.tracking import EXPERIMENT, find_run
from pipeline.registry.tracking_store import sync_artifacts
from pipeline.registry.unfinished_runs import open_run
from pipeline.registry.version_segmenter import SEGMENTER
from pipeline.registry.versions import GENERATE_TAG, list_versions, registry_lock

if TYPE_CHECKING:
    from pipeline.models.generation import GenerateSettings

_REQUIREMENTS = (
    "mlflow",
    "torch",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "accelerate",
    "huggingface-hub",
    "httpx2",
    "filelock",
    "numpy",
    "pandas",
    "pydantic",
    "pyyaml",
    "tqdm",
    "yake",
)
_IDENTITY_TAGS = ("model.md5", "segmenter.md5", "model.code", GENERATE_TAG)
"""Two registrations with the same values of these tags are one version."""


@dataclass(frozen=True)
class Registered:
    """The result of the register stage: reports/registered.json."""

    name: str
    version: int
    model: str
    model_md5: str
    run_id: str


def register(
    client: MlflowClient,
    name: str,
    folder: Path,
    settings: GenerateSettings,
    *,
    run_id: str,
    tags: dict[str, str],
    segmenter: Path | None = None,
) -> ModelVersion:
    """Register the model in `folder` as the challenger; if a version already holds this model, reuse that version.

    Args:
        settings: the version's generation settings.
        run_id: the run of the training. If this tracking server does not know it, the version gets a run of its own.
        tags: the tags of the version. A version that exists gets these values too.
        segmenter: the folder of the segmenter that finds the version's chapters.
    """
    tags = {**tags, GENERATE_TAG: settings.model_dump_json()}
    with registry_lock():
        version = _same_version(client, name, tags)
        if version is None:
            version = _log_version(client, name, folder, settings, run_id, tags, segmenter)
        else:
            for key, value in tags.items():
                client.set_model_version_tag(name, version.version, key, value)
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def _same_version(client: MlflowClient, name: str, tags: dict[str, str]) -> ModelVersion | None:
    """Find a version with the same weights, segmenter, code and generation settings."""
    for version, _ in list_versions(client, name):
        if all(version.tags.get(key) == tags.get(key) for key in _IDENTITY_TAGS):
            return version
    return None


def _log_version(
    client: MlflowClient,
    name: str,
    folder: Path,
    settings: GenerateSettings,
    run_id: str,
    tags: dict[str, str],
    segmenter: Path | None,
) -> ModelVersion:
    known = find_run(client, run_id) is not None
    run_name = None if known else f"register {tags['model']}"
    with open_run(client, EXPERIMENT, run_name, run_id=run_id if known else None):
        logged = log_served_model(folder, settings, segmenter)
    # Files first, then the database: after a power loss, each version in the database has its files.
    sync_artifacts(client.get_logged_model(logged.model_id).artifact_location)
    return mlflow.register_model(logged.model_uri, name, tags=tags)


def log_served_model(folder: Path, settings: GenerateSettings, segmenter: Path | None = None) -> ModelInfo:
    """Log the model in `folder` as MLflow will serve it, with all its code, into the open run if there is one.

    The logged folder also gets a generation_config.json with `settings`, so that transformers' own
    `from_pretrained(...).generate()` writes the same titles.
    """
    from pipeline.models.generation import generation_config
    from pipeline.registry import served_model  # imports torch, which takes seconds

    path, write_bytecode = [*sys.path], sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(served_model.__file__).resolve()),
            artifacts={"model": str(folder.resolve())} | ({SEGMENTER: str(segmenter.resolve())} if segmenter else {}),
            code_paths=[str(Path(served_model.__file__).resolve().parents[1])],
            model_config={"generate": settings.model_dump()},
            signature=served_model.signature(settings),
            input_example=served_model.EXAMPLE,
            pip_requirements=[f"{name}=={installed_version(name).split('+')[0]}" for name in _REQUIREMENTS],
        )
    finally:
        # MLflow adds its temporary folder to sys.path to try the example, and deletes the folder afterwards.
        sys.path[:], sys.dont_write_bytecode = path, write_bytecode
    with TemporaryDirectory() as scratch:
        generation_config(folder, settings).save_pretrained(scratch)
        MlflowClient().log_model_artifacts(logged.model_id, scratch, f"artifacts/{folder.name}")
    return logged
