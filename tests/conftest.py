"""Fixtures that several tests share: small examples, an empty tracking database, and a project folder."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.forking import quick_python, start_server
from tests.quick import is_quick

if TYPE_CHECKING:
    import pandas as pd

os.environ["DVC_NO_ANALYTICS"] = "true"  # `dvc init` sends statistics before `dvc config` can turn them off

ROOT = Path(__file__).parents[1]

LONGEST = (
    *("test_load.py", "test_killed.py", "test_inputs.py"),
    *("test_pipeline.py", "test_servers.py", "test_train.py", "test_promote.py"),
)
"""The longest files. They start first, so that no process runs one of them after the others have finished."""

LIBRARIES = ("torch", "transformers.trainer", "sklearn", "mlflow.pyfunc", "great_expectations", "gradio", "dvc.repo")
"""The libraries that take longest to import."""

SUBJECTS = ("gradients", "matrices", "graphs", "sorting", "parsing", "caching", "hashing", "threads")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="Run only the files that load no heavy library.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that are not quick, without importing them, and folders that have no others.

    Returns:
        None to leave the decision to other rules.
    """
    if not config.getoption("--quick"):
        return None
    if collection_path.is_dir():
        return None if any(map(is_quick, collection_path.rglob("test_*.py"))) else True
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_test and not is_quick(collection_path) else None


def pytest_configure() -> None:
    start_server()  # one for all processes of pytest-xdist


def pytest_sessionstart(session: pytest.Session) -> None:
    """Prepare a process for tests. The one that only distributes tests to others would start seconds later with it."""
    if session.config.getoption("dist", "no") != "no":
        return
    import hypothesis

    # A busy machine would exceed Hypothesis's deadline of 0.2 s for one example, and the test would fail.
    hypothesis.settings.register_profile("tests", deadline=None, max_examples=50)
    hypothesis.settings.load_profile("tests")
    if session.config.getoption("--quick"):
        return
    import prefect.main  # noqa: F401 - closes the log handlers that it finds: absl's would close pytest's stream later

    import pipeline  # noqa: F401 - sets environment variables that libraries read when they are imported

    # Imports compile modules in a new environment. Two processes that import in opposite orders share the work.
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        for name in LIBRARIES[:: -1 if int(worker.removeprefix("gw")) % 2 else 1]:
            importlib.import_module(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()  # each training collects garbage, which takes a second longer with all imported modules


@pytest.fixture(scope="session")
def examples() -> pd.DataFrame:
    """Two lessons of eight topics, whose titles follow from their texts."""
    import pandas as pd

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
    from mlflow import MlflowClient

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
