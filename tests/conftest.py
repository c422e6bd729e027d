"""What several tests share: small examples, small models, and a project folder with the shipped knobs."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import prefect.main  # noqa: F401 - it shuts all handlers that it finds, and that of absl closes the stream pytest gave it
import pytest
from mlflow import MlflowClient

from tests.forking import quick_python, start_server

os.environ["DVC_NO_ANALYTICS"] = "true"  # a new DVC project would ask to be counted before it can be told not to

ROOT = Path(__file__).parents[1]

LONGEST = (
    *("test_load.py", "test_killed.py", "test_inputs.py"),
    *("test_pipeline.py", "test_up.py", "test_train.py", "test_promote.py"),
)
"""The files that take longest: begun first, so that no process is left alone with one."""

SUBJECTS = ("gradients", "matrices", "graphs", "sorting", "parsing", "caching", "hashing", "threads")


def pytest_configure() -> None:
    start_server()  # for this process, and for those that pytest-xdist starts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays: each training collects garbage, which would take a second to look through it


@pytest.fixture(scope="session")
def examples() -> pd.DataFrame:
    """Two lessons of eight topics, whose titles follow from their texts."""
    rows = [
        {
            "course_title": "Course",
            "lesson_num": lesson,
            "start_seconds": 60.0 * i,
            "title": f"Why {subject} matter",
            "text": f"so in this part of lesson {lesson} we talk about {subject} and why {subject} matter " * (1 + i),
        }
        for lesson in ("1", "2A")
        for i, subject in enumerate(SUBJECTS)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def empty_tracking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database without runs: to make its tables takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("tracking")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def quick_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test starts by `sys.executable` starts within a moment; where anything is killed, it is the real one."""
    if "hard" not in request.path.parts:
        monkeypatch.setattr(sys, "executable", str(quick_python()))


@pytest.fixture
def enter_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Makes a copy of a DVC project the working directory."""

    def enter(template: Path) -> Path:
        folder = tmp_path / "project"
        shutil.copytree(template, folder)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
        return folder

    return enter


@pytest.fixture
def project(tmp_path: Path, empty_tracking: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder with the shipped knobs and graph, and a tracking database of its own."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(empty_tracking, tmp_path)
    monkeypatch.chdir(tmp_path)
    # Absolute, because MLflow keeps one store for each address it has seen in this process.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path
