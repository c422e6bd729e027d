"""A project with three registered versions, made once and restored for each test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import prefect.main  # noqa: F401 - before what imports absl, as in tests/conftest.py
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from pipeline.maintenance.backup import back_up, restore
from pipeline.models.generation import open_titler
from pipeline.registry import gate, joint_rule, promotion
from pipeline.registry.serving_trial import Trial, try_version
from pipeline.registry.tracking import connect
from pipeline.registry.versions import settings_of
from tests.conftest import ROOT
from tests.registry.small import register, save_small_model


@pytest.fixture(scope="session")
def registry_backup(examples: pd.DataFrame, empty_tracking: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a project: versions 1, 2 and 3 of one model with other generation settings each, and both splits."""
    folder = tmp_path_factory.mktemp("registry")
    (project := folder / "project").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
        for file in (ROOT / "params.yaml", ROOT / "dvc.yaml", empty_tracking):
            shutil.copy(file, project)
        client, model = connect(), save_small_model(project / "model", examples, "causal")
        for beams in (1, 2, 3):
            register(client, model, num_beams=beams)
        Path("data/splits").mkdir(parents=True)
        for split in ("train", "test"):
            examples.to_parquet(f"data/splits/{split}.parquet")
        back_up(folder / "backup.tar")
    return folder / "backup.tar"


@pytest.fixture
def three_versions(registry_backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The project of `registry_backup` as the working directory; version 3 is the challenger."""
    folder = tmp_path / "project"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # a version has hundreds of files
        restore(registry_backup, folder)
    _artifact_repos_cache.clear()  # MLflow knows artifact folders by run, and the runs of all tests have the same ids
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return connect()


@pytest.fixture
def registered(project: Path, examples: pd.DataFrame, tmp_path: Path) -> MlflowClient:
    """Versions 1 and 2 of one model on the tracking server of this test."""
    client, folder = connect(), save_small_model(tmp_path / "model", examples, "causal")
    for beams in (1, 2):
        register(client, folder, num_beams=beams)
    return client


@pytest.fixture
def served_here(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Versions write their titles in this process: a process for each trial takes seconds to start.

    Returns:
        A set for the numbers of versions that are tried in a process of their own all the same.
    """
    served_apart: set[str] = set()

    def try_here(version: ModelVersion, texts: list[str]) -> Trial:
        number = str(version.version)
        if number in served_apart:
            return try_version(version, texts)
        folder = Path("mlartifacts").resolve()
        (model,) = folder.rglob(f"{version.source.rpartition('/')[2]}/artifacts/artifacts/*/lectern.json")
        titler = open_titler(model.parent, settings_of(version)).with_overrides({"candidates": 0})
        assert len(set(texts)) == len(texts), "a text was titled twice"
        return Trial(titler.titles(texts), seconds_a_title=0.1, megabytes=1)

    for module in (gate, joint_rule, promotion):
        monkeypatch.setattr(module, "try_version", try_here)
    return served_apart
