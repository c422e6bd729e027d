"""Find the served version, the champion or else the challenger, and load it for titling.

Until a version is registered, a pretrained model takes its place. MLflow takes seconds to import, so this file imports
it only when a version may be registered.
"""

from __future__ import annotations

import logging
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pipeline
from pipeline.errors import Rejected, UsageError
from pipeline.experiments import sqlite_file
from pipeline.extras import require_extra
from pipeline.models.title_cleanup import PLAIN, shorten_title
from pipeline.paths import EXPORTS
from pipeline.registry.fallback_title import Shown, shown_titles, titles_frame
from pipeline.registry.register_settings import RegisterSettings
from pipeline.titles.settings import TitlesSettings

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.chapters.segmenter import Segmenter

_INSTALLED_CODE = Path(pipeline.__file__).parent
_PRETRAINED = "pretrained"
_log = logging.getLogger(__name__)

Predict = Callable[[list[str], Mapping[str, object]], pd.DataFrame]
"""A function from texts and generation parameters to the table of `pipeline.registry.fallback_title.answer`."""

WriteTitles = Callable[[list[str]], list[Shown]]
"""A function from texts to one title for each, with all candidates that the model finds on the way."""


@dataclass(frozen=True)
class ServedVersion:
    """A registered version to title with, or the pretrained model that takes its place.

    name: of the registered model; `pretrained` for the pretrained model.
    number: of the version; the pretrained model's name in params.yaml.
    identity: a text that changes whenever the titles may change.
    export: folder of its fast export, if that writes the titles.
    """

    name: str
    number: str
    identity: str
    export: Path | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def is_registered(self) -> bool:
        """Return whether this is a version of the registry."""
        return self.name != _PRETRAINED


def find_served_version(*, fast: bool = False) -> ServedVersion:
    """Look up the champion, else the challenger, else the pretrained model.

    Args:
        fast: use the export that `lectern export` has made of it.

    Raises:
        Rejected: no version is registered, and there is no pretrained model or `fast` is set.
        UsageError: `fast` is set and the version has no up-to-date export.
    """
    settings = RegisterSettings.read()
    if settings.pretrained and not fast and not _database_exists():
        return _pretrained_version(settings.pretrained)
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import find_served, nothing_registered

    registered = find_served(connect(), settings.name)
    if registered is None:
        if fast or not settings.pretrained:
            raise Rejected(nothing_registered(settings.name))
        return _pretrained_version(settings.pretrained)
    version = to_served_version(registered)
    return _with_export(version, _model_md5(registered)) if fast else version


def _database_exists() -> bool:
    """Return whether there is a tracking database, or a server that may have one."""
    file = sqlite_file(os.environ["MLFLOW_TRACKING_URI"])
    return file is None or file.exists()


def _pretrained_version(model: str) -> ServedVersion:
    from pipeline.models.checkpoints import ModelSettings
    from pipeline.models.generation import GenerateSettings

    settings = ModelSettings.read(model).model_dump_json(), GenerateSettings.read(model).model_dump_json()
    return ServedVersion(_PRETRAINED, model, " ".join(settings))


def to_served_version(registered: ModelVersion) -> ServedVersion:
    """Convert a version of MLflow's registry."""
    name, number = registered.name, str(registered.version)
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    return ServedVersion(name, number, f"{tracking} {name}/{number} {_model_md5(registered)}")


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

    Titles are cut to the length that params.yaml sets.

    Raises:
        Rejected: the version cannot be loaded.
        TemporaryFailure: the store of its files does not answer.
    """
    predict, longest = load_version(version), TitlesSettings.read().longest

    def write_titles(texts: list[str]) -> list[Shown]:
        return [
            Shown(shorten_title(title, longest), fallback, [shorten_title(each, longest) for each in candidates])
            for title, fallback, candidates in shown_titles(predict(texts, {"candidates": 0}))
        ]

    return write_titles


@lru_cache(maxsize=1)
def load_segmenter(version: ServedVersion) -> Segmenter | None:
    """Load the segmenter of a version; None for the pretrained model, and for a version from before segmenters.

    Raises:
        Rejected: the segmenter cannot be loaded.
        TemporaryFailure: the store of its files does not answer.
    """
    if not version.is_registered:
        return None
    from pipeline.registry.version_segmenter import read_segmenter

    return read_segmenter(version.name, version.number)


@lru_cache(maxsize=1)
def load_version(version: ServedVersion) -> Predict:
    """Load a version. The last one stays loaded.

    Raises:
        Rejected: the version cannot be loaded.
        TemporaryFailure: the store of its files does not answer.
    """
    if version.export:
        return _load_export(version.export)
    if not version.is_registered:
        return _load_pretrained(version.number)
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


def _load_pretrained(model: str) -> Predict:
    from pipeline.models.checkpoints import ModelSettings
    from pipeline.models.generation import GenerateSettings, open_pretrained

    _log.warning(
        "No version is registered yet, so the pretrained model '%s' writes the titles. Trained on your own lessons, it "
        "learns how your course words its titles: `lectern use WORKBOOK`, then `lectern run`.",
        model,
    )
    titler = open_pretrained(ModelSettings.read(model), GenerateSettings.read(model))

    def predict(texts: list[str], parameters: Mapping[str, object]) -> pd.DataFrame:
        changed = titler.with_overrides(parameters) if parameters else titler
        return titles_frame(texts, changed.titles(texts), titler.style)

    return predict


def _load_model(version: ServedVersion, downloads: str) -> mlflow.pyfunc.PyFuncModel:
    import mlflow

    from pipeline.registry.outages import translate_error

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
    from pipeline.registry.lineage import title_code_hashes

    carried = folder / "code" / pipeline.__name__
    return carried.is_dir() and title_code_hashes(carried) != title_code_hashes(_INSTALLED_CODE)


def _fetch_files(uri: str, downloads: str) -> str:
    """Return the folder of a version's files: its own place on this machine, else a download in `downloads`."""
    import mlflow

    from pipeline.models.checkpoint_sources import artifact_store, is_local

    return mlflow.artifacts.download_artifacts(uri, dst_path=None if is_local(artifact_store(uri)) else downloads)


def _load_export(folder: Path) -> Predict:
    require_extra("fast", user="An exported version")
    from pipeline.exports.fast_titler import FastTitler  # imports ctranslate2

    titler = FastTitler(folder)
    return lambda texts, parameters: titles_frame(texts, titler.titles(texts, parameters), titler.style)
