"""A version whose files a tracking server holds is fetched to be used, and is in nobody's way afterwards."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.errors import Rejected
from pipeline.titles.served_version import load_version, to_served_version
from tests.registry.test_gate import registered  # noqa: F401 - a fixture
from tests.registry.test_training_log import server  # noqa: F401 - a fixture
from tests.registry.test_versions import NAME


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process keeps what it needs for a while."""
    folder = tmp_path / "for-a-while"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    load_version.cache_clear()
    return folder


def test_what_was_fetched_of_a_version_goes_when_another_takes_its_place(
    server: object,  # noqa: F811 - ahead of what is registered there
    registered: MlflowClient,  # noqa: F811
    fetched: Path,
) -> None:
    for number in ("1", "2"):
        predict = load_version(to_served_version(registered.get_model_version(NAME, number)))
        assert len(predict(["the gradient says where to go"], {})) == 1
        del predict
        gc.collect()
        assert len(list(fetched.rglob("MLmodel"))) == 1
    load_version.cache_clear()
    gc.collect()
    assert not list(fetched.iterdir())


def test_nothing_is_left_of_a_version_that_does_not_load(
    server: object,  # noqa: F811
    registered: MlflowClient,  # noqa: F811
    project: Path,
    fetched: Path,
) -> None:
    for weights in (project / "served").rglob("*.safetensors"):
        weights.write_bytes(b"no weights")
    with pytest.raises(Rejected, match=f"Version 1 of '{NAME}' cannot be loaded"):
        load_version(to_served_version(registered.get_model_version(NAME, "1")))
    assert not list(fetched.iterdir())


def test_a_version_whose_files_are_here_is_read_where_it_is_and_stays(
    registered: MlflowClient,  # noqa: F811
    fetched: Path,
) -> None:
    version = to_served_version(registered.get_model_version(NAME, "1"))
    for _ in range(2):
        assert len(load_version(version)(["the gradient"], {})) == 1
        assert not list(fetched.rglob("MLmodel"))
        load_version.cache_clear()
        gc.collect()


def test_a_version_of_other_code_says_that_this_code_writes_its_titles(
    registered: MlflowClient,  # noqa: F811
    project: Path,
    fetched: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    version = to_served_version(registered.get_model_version(NAME, "1"))
    load_version(version)
    assert "other code" not in caplog.text
    for code in project.rglob("code/pipeline/models/tidy.py"):
        code.write_text("# as it was once", encoding="utf-8")
    load_version.cache_clear()
    load_version(version)
    assert f"Version 1 of '{NAME}' was registered with other code" in caplog.text
