"""Titles by models other than the served version: registered versions, trained models and baselines."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyarrow.parquet import read_schema

from pipeline.errors import UsageError
from pipeline.evaluation.baselines import BASELINES
from pipeline.models.generation import GenerateSettings, open_titler
from pipeline.paths import MODELS, TRAINING_SPLITS
from pipeline.registry.fallback_title import Shown, choose_titles
from pipeline.registry.register_settings import RegisterSettings
from pipeline.registry.tracking import connect
from pipeline.registry.versions import get_version, list_versions
from pipeline.titles.served_version import load_titler, to_served_version

_BASELINE = "baseline: "
_TRAINED = "trained: "
_NEEDS_TRAINING_SPLIT = "frequent-title"


def list_models() -> list[str]:
    """List the models that `titles_by` accepts: versions, newest first, then trained models, then baselines.

    Raises:
        TemporaryFailure: the registry does not answer.
    """
    name = RegisterSettings.read().name
    registered = [
        " ".join([f"{name}/{version.version}", *(f"({alias})" for alias in aliases)])
        for version, aliases in list_versions(connect(), name)
    ]
    trained = [f"{_TRAINED}{name}" for name in _trained_models()]
    has_split = TRAINING_SPLITS["train"].is_file()
    baselines = [f"{_BASELINE}{each}" for each in BASELINES if has_split or each != _NEEDS_TRAINING_SPLIT]
    return [*registered, *trained, *baselines]


def _trained_models() -> list[str]:
    return sorted(card.parent.name for card in MODELS.glob("[!.]*/lectern.json"))


def titles_by(model: str, texts: Sequence[str]) -> list[str]:
    """Title each text with one of `list_models`. A title is empty if the model has none, with no keyphrase instead.

    Raises:
        UsageError: the model does not exist.
        Rejected: the version cannot be loaded.
    """
    if model.startswith(_BASELINE):
        return _titles_by_baseline(model.removeprefix(_BASELINE), texts)
    if model.startswith(_TRAINED):
        return _titles_by_trained(model.removeprefix(_TRAINED), texts)
    name, _, number = model.split(" ", maxsplit=1)[0].rpartition("/")
    if name != RegisterSettings.read().name or not number.isdecimal():
        raise _unknown_model(model)
    write_titles = load_titler(to_served_version(get_version(connect(), name, int(number))))
    return _own_titles(write_titles([*texts])) if texts else []


def _unknown_model(model: str) -> UsageError:
    return UsageError(f"Model {model!r} does not exist. Reload the page to see the list of models.")


def _titles_by_trained(name: str, texts: Sequence[str]) -> list[str]:
    if name not in _trained_models():
        raise _unknown_model(f"{_TRAINED}{name}")
    titler = open_titler(MODELS / name, GenerateSettings.read(name))
    return _own_titles(choose_titles(texts, titler.titles([*texts]), titler.style))


def _own_titles(written: Sequence[Shown]) -> list[str]:
    return ["" if each.fallback else each.title for each in written]


def _titles_by_baseline(name: str, texts: Sequence[str]) -> list[str]:
    if name not in BASELINES:
        raise UsageError(f"Baseline {name!r} does not exist. Use one of {', '.join(BASELINES)}.")
    path = TRAINING_SPLITS["train"]
    train = pd.DataFrame({"title": []})
    if path.is_file():
        columns = [column for column in ("title", "opens") if column in read_schema(path).names]
        train = pd.read_parquet(path, columns=columns)
    return BASELINES[name](train, texts)
