"""Reading versions without MLflow gives what MLflow gives."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.registry.registry_database import CHAMPION, CHECKED_AGAINST, read_versions
from pipeline.registry.versions import list_versions
from pipeline.titles.served_version import find_served_version, load_version
from tests.registry.small import NAME


def test_mlflow_has_the_tables_that_this_was_checked_against(empty_tracking: Path) -> None:
    with closing(sqlite3.connect(empty_tracking)) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == (CHECKED_AGAINST,)


def _name_in_params() -> None:
    params = Path("params.yaml")
    params.write_text(params.read_text(encoding="utf-8").replace("name: lectern", f"name: {NAME}"), encoding="utf-8")


def test_versions_are_those_that_mlflow_lists(three_versions: MlflowClient) -> None:
    _name_in_params()
    three_versions.set_registered_model_alias(NAME, CHAMPION, "2")
    three_versions.delete_model_version(NAME, "1")
    found = read_versions(NAME)
    expected = list_versions(three_versions, NAME)
    assert [(each.version, each.tags, each.creation_timestamp, each.aliases) for each in found] == [
        (int(each.version), each.tags, each.creation_timestamp, aliases) for each, aliases in expected
    ]
    assert all((each.files / "MLmodel").is_file() for each in found)
    assert find_served_version().number == "2"


def test_nothing_is_registered_without_a_database_or_under_another_name(
    three_versions: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_versions("another") == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///absent.db")
    assert read_versions(NAME) == []


def test_other_databases_are_left_to_mlflow(three_versions: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '1'")
    assert read_versions(NAME) is None
    Path("damaged.db").write_bytes(b"no database" * 1000)
    for tracking in ("sqlite:///damaged.db", "http://127.0.0.1:9"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
        assert read_versions(NAME) is None


def test_a_version_on_this_machine_is_found_and_loaded_without_mlflow(three_versions: MlflowClient) -> None:
    _name_in_params()
    code = (
        "import sys; from pipeline.titles.served_version import *\n"
        "from pipeline.titles.passage import title_passage\n"
        "print(title_passage('the gradient says where to go', find_served_version(), {}))\n"
        "assert 'pandas' not in sys.modules\n"
        "load_segmenter(find_served_version())\n"
        "assert not {'mlflow', 'nltk', 'sklearn', 'yake'} & set(sys.modules)"
    )
    python = str(Path(sys.prefix, "bin", "python"))  # `sys.executable` may be a process that has imported MLflow
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (expected,) = load_version(find_served_version())(["the gradient says where to go"], {})
    assert done.stdout.strip() == str([expected.title])
