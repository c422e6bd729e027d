"""Find the served version, the champion or else the challenger, and load it for titling.

Until a version is registered, a pretrained model takes its place. MLflow takes seconds to import, so this file imports
it only when the version or its files are on another machine.
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

import yaml

import pipeline
from pipeline.errors import Rejected, TemporaryFailure
from pipeline.extras import has_extra
from pipeline.models.title_cleanup import shorten_title
from pipeline.paths import EXPORTS, SEGMENTER
from pipeline.registry.fallback_title import Shown, choose_titles
from pipeline.registry.register_settings import RegisterSettings
from pipeline.registry.registry_database import CHALLENGER, CHAMPION, RegisteredVersion, read_versions
from pipeline.titles.settings import TitlesSettings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.chapters.segmenter import Segmenter
    from pipeline.models.generation import Titler

_INSTALLED_CODE = Path(pipeline.__file__).parent
_PRETRAINED = "pretrained"
_log = logging.getLogger(__name__)

Predict = Callable[[list[str], Mapping[str, object]], list[Shown]]
"""A function from texts and generation parameters to one title for each text, with the candidates asked for."""

WriteTitles = Callable[[list[str]], list[Shown]]
"""A function from texts to one title for each, with all candidates that the model finds on the way."""


@dataclass(frozen=True)
class ServedVersion:
    """A registered version to title with, or the pretrained model that takes its place.

    name: of the registered model; `pretrained` for the pretrained model.
    number: of the version; the pretrained model's name in params.yaml.
    identity: a text that changes whenever the titles may change.
    export: folder of its export, which then writes the titles.
    files: folder of its files; None if MLflow has to find them.
    """

    name: str
    number: str
    identity: str
    export: Path | None = None
    files: Path | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def is_registered(self) -> bool:
        """Return whether this is a version of the registry."""
        return self.name != _PRETRAINED


def find_served_version() -> ServedVersion:
    """Look up the champion, else the challenger, else the pretrained model.

    Raises:
        Rejected: no version is registered and there is no pretrained model, or the card of the export is damaged.
    """
    settings = RegisterSettings.read()
    registered = _find_registered(settings.name)
    if registered is None:
        if not settings.pretrained:
            from pipeline.registry.versions import nothing_registered

            raise Rejected(nothing_registered(settings.name))
        return _pretrained_version(settings.pretrained)
    return to_served_version(registered)


def _find_registered(name: str) -> ModelVersion | RegisteredVersion | None:
    """Return the champion, else the challenger; None if neither exists."""
    versions = read_versions(name)
    if versions is None:
        from pipeline.registry.tracking import connect
        from pipeline.registry.versions import find_served

        return find_served(connect(), name)
    by_alias = {alias: version for version in versions for alias in version.aliases}
    return by_alias.get(CHAMPION) or by_alias.get(CHALLENGER)


def _pretrained_version(model: str) -> ServedVersion:
    from pipeline.models.checkpoints import ModelSettings
    from pipeline.models.generation import GenerateSettings

    settings = ModelSettings.read(model).model_dump_json(), GenerateSettings.read(model).model_dump_json()
    return ServedVersion(_PRETRAINED, model, " ".join(settings))


def to_served_version(registered: ModelVersion | RegisteredVersion) -> ServedVersion:
    """Convert a version of MLflow's registry. If it has an export that makes titles faster, this writes them.

    Raises:
        Rejected: the card of the export is damaged.
    """
    name, number = registered.name, str(registered.version)
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    files = registered.files if isinstance(registered, RegisteredVersion) else None
    model_md5 = registered.tags.get("model.md5", "")
    version = ServedVersion(name, number, f"{tracking} {name}/{number} {model_md5}", files=files)
    return _with_export(version, model_md5)


def _with_export(version: ServedVersion, model_md5: str) -> ServedVersion:
    folder = EXPORTS / version.name / version.number
    if not folder.exists() or not has_extra("fast"):
        return version
    from pipeline.exports.export_card import CARD, ExportCard  # imports torch
    from pipeline.models.device import inference_device

    if not (folder / CARD).exists() or inference_device() != "cpu":  # an export writes titles on the CPU
        return version
    card = ExportCard.read(folder)
    if card.model_md5 != model_md5 or not card.is_faster:  # of a deleted version with this number; of an old release
        return version
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
            for title, fallback, candidates in predict(texts, {"candidates": 0})
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
    if version.files:
        from pipeline.chapters.segmenter import Segmenter

        folder = version.files / "artifacts" / SEGMENTER.name
        return Segmenter.load(folder) if folder.is_dir() else None
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
    if version.files:
        return _load_files(version, version.files)
    downloads = tempfile.TemporaryDirectory(prefix="lectern-version-", ignore_cleanup_errors=True)
    try:
        predict = _load_files(version, _fetch_files(version, downloads.name))
    except BaseException:
        downloads.cleanup()
        raise
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
    return _predict_with(open_pretrained(ModelSettings.read(model), GenerateSettings.read(model)))


def _predict_with(titler: Titler) -> Predict:
    def predict(texts: list[str], parameters: Mapping[str, object]) -> list[Shown]:
        changed = titler.with_overrides(parameters) if parameters else titler
        return choose_titles(texts, changed.titles(texts), titler.style)

    return predict


def _load_files(version: ServedVersion, folder: Path) -> Predict:
    """Load the version whose files are in `folder` as MLflow and `TitleModel.load_context` would, without MLflow."""
    if _carries_other_code(folder):
        _log.warning(
            "Version %s of '%s' was registered with other code than the installed code, which writes the titles now. "
            "The titles may differ from those that were evaluated. To register a version with this code, run `lectern "
            "register`.",
            version.number,
            version.name,
        )
    from pipeline.models.generation import GenerateSettings, open_titler

    try:
        flavor = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
        generate, model = flavor["config"]["generate"], flavor["artifacts"]["model"]["path"]
    except (KeyError, TypeError) as error:
        raise Rejected(f"{_cannot_be_loaded(version)}: `lectern register` did not write its file MLmodel") from error
    except Exception as error:  # the kinds depend on the damage
        raise Rejected(f"{_cannot_be_loaded(version)}: {error}") from error
    try:
        return _predict_with(open_titler(folder / model, GenerateSettings.model_validate(generate)))
    except TemporaryFailure:
        raise
    except Exception as error:  # the kinds depend on the damage
        raise Rejected(f"{_cannot_be_loaded(version)}: {error}") from error


def _cannot_be_loaded(version: ServedVersion) -> str:
    return f"Version {version.number} of '{version.name}' cannot be loaded"


def _carries_other_code(folder: Path) -> bool:
    """Return whether the version in `folder` carries other code than the installed code, which Python already uses."""
    from pipeline.registry.lineage import title_code_hashes

    carried = folder / "code" / pipeline.__name__
    return carried.is_dir() and title_code_hashes(carried) != title_code_hashes(_INSTALLED_CODE)


def _fetch_files(version: ServedVersion, downloads: str) -> Path:
    """Return the folder of a version's files: its own place on this machine, else a download in `downloads`."""
    import mlflow

    from pipeline.models.checkpoint_sources import artifact_store, is_local
    from pipeline.registry.outages import translate_error

    uri = f"models:/{version}"
    try:
        to = None if is_local(artifact_store(uri)) else downloads
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=to))
    except Exception as error:  # the kinds depend on the store
        raise translate_error(error) or Rejected(f"{_cannot_be_loaded(version)}: {error}") from error


def _load_export(folder: Path) -> Predict:
    from pipeline.exports.fast_titler import FastTitler  # imports ctranslate2

    titler = FastTitler(folder)
    _log.info("Titles are written by the export in %s, with weights in %s.", folder, titler.card.weights)
    return lambda texts, parameters: choose_titles(texts, titler.titles(texts, parameters), titler.style)
