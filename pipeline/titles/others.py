"""What the other models would say: the registered versions, and what needs no training."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd
from pyarrow.parquet import read_schema

from pipeline.errors import Misused
from pipeline.evaluation.baselines import BASELINES
from pipeline.paths import TRAINING_SPLITS
from pipeline.registry.tracking import connect
from pipeline.registry.versions import RegisterSettings, named_version, versions
from pipeline.titles.version import as_version, writer_of

_BASELINE = "baseline: "
_OF_THE_TRAINING_SPLIT = "frequent-title"
_log = logging.getLogger(__name__)


def other_models() -> list[str]:
    """Their names, as `titles_by` takes them: the versions, the newest first, and the baselines.

    Raises:
        Unavailable: the registry does not answer.
    """
    name = RegisterSettings.read().name
    found = [
        " ".join([f"{name}/{version.version}", *(f"({alias})" for alias in aliases)])
        for version, aliases in versions(connect(), name)
    ]
    trained = TRAINING_SPLITS["train"].is_file()
    return [*found, *(f"{_BASELINE}{each}" for each in BASELINES if trained or each != _OF_THE_TRAINING_SPLIT)]


def titles_by(model: str, texts: Sequence[str]) -> list[str]:
    """A title for each text, by one of `other_models`; an empty one where it has none to give.

    Raises:
        Misused: there is no such model.
        Refused: the version does not load.
    """
    if model.startswith(_BASELINE):
        return _by_baseline(model.removeprefix(_BASELINE), texts)
    name, _, number = model.split(" ", maxsplit=1)[0].rpartition("/")
    if name != RegisterSettings.read().name or not number.isdecimal():
        raise Misused(f"There is no model {model!r}. Open the page anew: it lists those that there are.")
    write = writer_of(as_version(named_version(connect(), name, int(number))))
    return [shown.title for shown in write([*texts])] if texts else []


def _by_baseline(name: str, texts: Sequence[str]) -> list[str]:
    if name not in BASELINES:
        raise Misused(f"There is no baseline {name!r}. Use one of {', '.join(BASELINES)}.")
    path = TRAINING_SPLITS["train"]
    train = pd.DataFrame({"title": []})
    if path.is_file():
        wanted = [column for column in ("title", "opens") if column in read_schema(path).names]
        train = pd.read_parquet(path, columns=wanted)
    return BASELINES[name](train, texts)
