"""Loading the served version: downloads are temporary, and local files are used in place."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.errors import Rejected
from pipeline.titles.served_version import Predict, load_version, to_served_version
from tests.registry.conftest import registered  # noqa: F401 - a fixture
from tests.registry.small import NAME
from tests.registry.test_training_log import server  # noqa: F401 - a fixture


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of this process."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    load_version.cache_clear()
    return folder


def _load(client: MlflowClient, number: str) -> Predict:
    return load_version(to_served_version(client.get_model_version(NAME, number)))


@pytest.mark.slow
def test_downloads_are_removed_with_their_version_or_if_it_cannot_be_loaded(
    server: object,  # noqa: F811 - before `registered`, which registers there
    registered: MlflowClient,  # noqa: F811
    project: Path,
    downloads: Path,
) -> None:
    for number in ("1", "2"):
        predict = _load(registered, number)
        assert len(predict(["the gradient says where to go"], {})) == 1
        del predict
        gc.collect()
        assert len(list(downloads.rglob("MLmodel"))) == 1, "the downloads of the version before are still there"
    load_version.cache_clear()
    gc.collect()
    assert not list(downloads.iterdir())

    for weights in (project / "served").rglob("*.safetensors"):
        weights.write_bytes(b"no weights")
    with pytest.raises(Rejected, match=f"Version 1 of '{NAME}' cannot be loaded"):
        _load(registered, "1")
    assert not list(downloads.iterdir())


@pytest.mark.slow
def test_local_files_are_used_in_place_and_other_code_is_reported(
    registered: MlflowClient,  # noqa: F811
    project: Path,
    downloads: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):
        assert len(_load(registered, "1")(["the gradient"], {})) == 1
        assert not list(downloads.rglob("MLmodel"))
        load_version.cache_clear()
        gc.collect()
    assert "other code" not in caplog.text
    for code in project.rglob("code/pipeline/models/title_cleanup.py"):
        code.write_text("# an earlier release", encoding="utf-8")
    _load(registered, "1")
    assert f"Version 1 of '{NAME}' was registered with other code" in caplog.text
