"""Fixtures that several tests share: small examples, an empty tracking database, and a project folder."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pandas as pd
import prefect.main  # noqa: F401 - closes the log handlers that it finds: absl's would close pytest's stream later
import pytest
from mlflow import MlflowClient

from tests.forking import quick_python, start_server
from tests.quick import is_quick

os.environ["DVC_NO_ANALYTICS"] = "true"  # `dvc init` sends statistics before `dvc config` can turn them off

# A busy machine would exceed Hypothesis's deadline of 0.2 s for one example, and the test would fail.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

ROOT = Path(__file__).parents[1]

LONGEST = (
    *("test_load.py", "test_killed.py", "test_inputs.py"),
    *("test_pipeline.py", "test_servers.py", "test_train.py", "test_promote.py"),
)
"""The longest files. They start first, so that no process runs one of them after the others have finished."""

SUBJECTS = ("gradients", "matrices", "graphs", "sorting", "parsing", "caching", "hashing", "threads")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="Run only the files that load no heavy library.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that are not quick, without importing them. None leaves the decision to other rules."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_test and config.getoption("--quick") and not is_quick(collection_path) else None


def pytest_configure() -> None:
    start_server()  # one for all processes of pytest-xdist


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()  # each training collects garbage, which takes a second longer with all imported modules


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
    """A tracking database without runs, made once because MLflow needs seconds to create its tables."""
    folder = tmp_path_factory.mktemp("tracking")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def quick_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `sys.executable` the `python` that forks. Hard tests kill processes, so they keep the real one."""
    if "hard" not in request.path.parts:
        monkeypatch.setattr(sys, "executable", str(quick_python()))


@pytest.fixture
def enter_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Return a function that copies a DVC project and makes the copy the working directory."""

    def enter(template: Path) -> Path:
        folder = tmp_path / "project"
        shutil.copytree(template, folder)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
        return folder

    return enter


@pytest.fixture
def project(tmp_path: Path, empty_tracking: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder with the shipped settings and graph, and a tracking database of its own."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(empty_tracking, tmp_path)
    monkeypatch.chdir(tmp_path)
    # MLflow caches a store for each address, so a relative one would lead to the database of an earlier test.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path
