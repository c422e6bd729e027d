"""What the other models would say: the registered versions, the trained models, and what needs no training."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd
from pyarrow.parquet import read_schema

from pipeline.errors import UsageError
from pipeline.evaluation.baselines import BASELINES
from pipeline.models.generation import GenerateSettings, open_titler
from pipeline.paths import MODELS, TRAINING_SPLITS
from pipeline.registry.fallback_title import choose_titles
from pipeline.registry.tracking import connect
from pipeline.registry.versions import RegisterSettings, get_version, list_versions
from pipeline.titles.titling import as_version, writer_of

_BASELINE = "baseline: "
_TRAINED = "trained: "
_OF_THE_TRAINING_SPLIT = "frequent-title"
_log = logging.getLogger(__name__)


def other_models() -> list[str]:
    """Their names, as `titles_by` takes them: the versions, the newest first, what is trained, and the baselines.

    Raises:
        TemporaryFailure: the registry does not answer.
    """
    name = RegisterSettings.read().name
    found = [
        " ".join([f"{name}/{version.version}", *(f"({alias})" for alias in aliases)])
        for version, aliases in list_versions(connect(), name)
    ]
    trained = [f"{_TRAINED}{name}" for name in _trained_models()]
    split = TRAINING_SPLITS["train"].is_file()
    baselines = [f"{_BASELINE}{each}" for each in BASELINES if split or each != _OF_THE_TRAINING_SPLIT]
    return [*found, *trained, *baselines]


def _trained_models() -> list[str]:
    return sorted(card.parent.name for card in MODELS.glob("[!.]*/lectern.json"))


def titles_by(model: str, texts: Sequence[str]) -> list[str]:
    """A title for each text, by one of `other_models`; an empty one where it has none to give.

    Raises:
        UsageError: there is no such model.
        Rejected: the version does not load.
    """
    if model.startswith(_BASELINE):
        return _by_baseline(model.removeprefix(_BASELINE), texts)
    if model.startswith(_TRAINED):
        return _by_trained(model.removeprefix(_TRAINED), texts)
    name, _, number = model.split(" ", maxsplit=1)[0].rpartition("/")
    if name != RegisterSettings.read().name or not number.isdecimal():
        raise _no_such(model)
    write = writer_of(as_version(get_version(connect(), name, int(number))))
    return [shown.title for shown in write([*texts])] if texts else []


def _no_such(model: str) -> UsageError:
    return UsageError(f"There is no model {model!r}. Open the page anew: it lists those that there are.")


def _by_trained(name: str, texts: Sequence[str]) -> list[str]:
    if name not in _trained_models():
        raise _no_such(f"{_TRAINED}{name}")
    titler = open_titler(MODELS / name, GenerateSettings.read(name))
    return [each.title for each in choose_titles(texts, titler.titles([*texts]), titler.style)]


def _by_baseline(name: str, texts: Sequence[str]) -> list[str]:
    if name not in BASELINES:
        raise UsageError(f"There is no baseline {name!r}. Use one of {', '.join(BASELINES)}.")
    path = TRAINING_SPLITS["train"]
    train = pd.DataFrame({"title": []})
    if path.is_file():
        wanted = [column for column in ("title", "opens") if column in read_schema(path).names]
        train = pd.read_parquet(path, columns=wanted)
    return BASELINES[name](train, texts)
