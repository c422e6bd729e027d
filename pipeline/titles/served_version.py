"""Find the served version, the champion or else the challenger, and load it for titling."""

from __future__ import annotations

import logging
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

import pipeline
from pipeline.errors import Rejected, UsageError
from pipeline.extras import require_extra
from pipeline.models.checkpoint_sources import artifact_store, is_local
from pipeline.models.title_cleanup import PLAIN
from pipeline.paths import EXPORTS
from pipeline.registry.fallback_title import Shown, titles_frame
from pipeline.registry.lineage import title_code_hashes
from pipeline.registry.outages import translate_error
from pipeline.registry.tracking import connect
from pipeline.registry.versions import RegisterSettings, served_version

_INSTALLED_CODE = Path(pipeline.__file__).parent
_log = logging.getLogger(__name__)

Predict = Callable[[list[str], Mapping[str, object]], pd.DataFrame]
"""A function from texts and generation parameters to the table of `pipeline.registry.fallback_title.answer`."""

WriteTitles = Callable[[list[str]], list[Shown]]
"""A function from texts to one title for each."""


@dataclass(frozen=True)
class ServedVersion:
    """A registered version to title with.

    identity: a text that changes whenever the titles may change.
    export: folder of its fast export, if that writes the titles.
    """

    name: str
    number: str
    identity: str
    export: Path | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


def find_served_version(*, fast: bool = False) -> ServedVersion:
    """Look up the champion, else the challenger.

    Args:
        fast: use the export that `lectern export` has made of it.

    Raises:
        Rejected: no version is registered.
        UsageError: `fast` is set and the version has no up-to-date export.
    """
    registered = served_version(connect(), RegisterSettings.read().name)
    version = to_served_version(registered)
    return _with_export(version, _model_md5(registered)) if fast else version


def to_served_version(registered: ModelVersion) -> ServedVersion:
    """Convert a version of MLflow's registry."""
    name, number = registered.name, str(registered.version)
    return ServedVersion(name, number, f"{mlflow.get_tracking_uri()} {name}/{number} {_model_md5(registered)}")


def _model_md5(registered: ModelVersion) -> str:
    return registered.tags.get("model.md5", "")


def _with_export(version: ServedVersion, model_md5: str) -> ServedVersion:
    from pipeline.exports.export_card import ExportCard  # imports torch

    folder = EXPORTS / version.name / version.number
    card = ExportCard.read(folder) if folder.exists() else None
    if card is None or card.model_md5 != model_md5:
        raise UsageError(
            f"Version {version} has no up-to-date export in {folder}. Run `lectern export {version.number}` first."
        )
    return replace(version, identity=f"{version.identity} {card.weights} {card.made}", export=folder)


def load_titler(version: ServedVersion) -> WriteTitles:
    """Load a version and return its function from texts to titles, with the version's own generation settings.

    Raises:
        Rejected: the version cannot be loaded.
        TemporaryFailure: the store of its files does not answer.
    """
    predict = load_version(version)

    def write_titles(texts: list[str]) -> list[Shown]:
        return [Shown(*row) for row in predict(texts, {})[["title", "fallback"]].itertuples(index=False)]

    return write_titles


@lru_cache(maxsize=1)
def load_version(version: ServedVersion) -> Predict:
    """Load a version. The last one stays loaded.

    Raises:
        Rejected: the version cannot be loaded.
        TemporaryFailure: the store of its files does not answer.
    """
    if version.export:
        return _load_export(version.export)
    downloads = tempfile.TemporaryDirectory(prefix="lectern-version-", ignore_cleanup_errors=True)
    try:
        model = _load_model(version, downloads.name)
    except BaseException:
        downloads.cleanup()
        raise

    def predict(texts: list[str], parameters: Mapping[str, object]) -> pd.DataFrame:
        predicted = model.predict(texts, params=dict(parameters) or None)
        if "fallback" in predicted:
            return predicted
        return titles_frame(texts, predicted["candidates"].tolist(), PLAIN)  # a version from before fallback titles

    weakref.finalize(predict, downloads.cleanup)  # a loaded model may still read its files
    return predict


def _load_model(version: ServedVersion, downloads: str) -> mlflow.pyfunc.PyFuncModel:
    failure = f"Version {version.number} of '{version.name}' cannot be loaded"
    try:
        folder = _fetch_files(f"models:/{version}", downloads)
    except Exception as error:  # the kinds depend on the store
        raise translate_error(error) or Rejected(f"{failure}: {error}") from error
    if _carries_other_code(Path(folder)):
        _log.warning(
            "Version %s of '%s' was registered with other code than the installed code, which writes the titles now. "
            "The titles may differ from those that were evaluated. To register a version with this code, run `lectern "
            "register`.",
            version.number,
            version.name,
        )
    try:
        return mlflow.pyfunc.load_model(folder)
    except Exception as error:  # the kinds depend on the damage
        raise Rejected(f"{failure}: {error}") from error


def _carries_other_code(folder: Path) -> bool:
    """Return whether the version in `folder` carries other code than the installed code, which Python already uses."""
    carried = folder / "code" / pipeline.__name__
    return carried.is_dir() and title_code_hashes(carried) != title_code_hashes(_INSTALLED_CODE)


def _fetch_files(uri: str, downloads: str) -> str:
    """Return the folder of a version's files: its own place on this machine, else a download in `downloads`."""
    return mlflow.artifacts.download_artifacts(uri, dst_path=None if is_local(artifact_store(uri)) else downloads)


def _load_export(folder: Path) -> Predict:
    require_extra("fast", user="An exported version")
    from pipeline.exports.fast_titler import FastTitler  # imports ctranslate2

    titler = FastTitler(folder)
    return lambda texts, parameters: titles_frame(texts, titler.titles(texts, parameters), titler.style)
