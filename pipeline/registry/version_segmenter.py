"""Read the segmenter that a registered version carries."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mlflow

from pipeline.chapters.segmenter import Segmenter
from pipeline.errors import Rejected
from pipeline.registry.outages import translate_error

SEGMENTER = "segmenter"
"""Name of the segmenter's folder in a version's artifacts."""


def read_segmenter(name: str, number: str) -> Segmenter | None:
    """Read the segmenter of a version; None if the version has none, as versions from before segmenters.

    Raises:
        Rejected: the segmenter is damaged.
        TemporaryFailure: the store of its files does not answer.
    """
    uri = f"models:/{name}/{number}/artifacts"
    try:
        folders = [file.path.rpartition("/")[2] for file in mlflow.artifacts.list_artifacts(artifact_uri=uri)]
        if SEGMENTER not in folders:
            return None
        with tempfile.TemporaryDirectory() as downloads:
            folder = mlflow.artifacts.download_artifacts(f"{uri}/{SEGMENTER}", dst_path=downloads)
            return Segmenter.load(Path(folder))
    except Rejected:
        raise
    except Exception as error:  # the kinds depend on the store
        unreadable = f"The segmenter of version {number} of '{name}' cannot be read: {error}"
        raise translate_error(error) or Rejected(unreadable) from error
