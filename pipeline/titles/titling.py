"""The version that counts, and many titles by it: alike texts once, in batches, going on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from tqdm import tqdm

import pipeline
from pipeline.errors import Rejected, UsageError
from pipeline.extras import require_extra
from pipeline.files import write_json
from pipeline.models.checkpoint_sources import is_here, store_of
from pipeline.models.title_cleanup import PLAIN
from pipeline.paths import EXPORTS, STATE
from pipeline.registry.fallback_title import Shown, answer
from pipeline.registry.lineage import code_that_writes_titles
from pipeline.registry.outages import in_our_words
from pipeline.registry.tracking import connect
from pipeline.registry.versions import RegisterSettings, version_to_use

KEPT = STATE / "titles"
CHUNK = 16
"""Texts whose titles are kept together: what a kill costs at most."""

_log = logging.getLogger(__name__)
_OURS = Path(pipeline.__file__).parent

Write = Callable[[list[str]], list[Shown]]


Predict = Callable[[list[str], Mapping[str, object]], pd.DataFrame]
"""Texts and knobs in; out what `pipeline.registry.fallback_title.answer` gives."""


@dataclass(frozen=True)
class Version:
    """A registered version; `identity` changes whenever its titles may."""

    name: str
    number: str
    identity: str
    exported: Path | None = None  # the folder that it is served from, where that is to be the quick one

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


@lru_cache(maxsize=1)
def load(version: Version) -> Predict:
    """The version as it is served.

    Raises:
        Rejected: it does not load.
        TemporaryFailure: the store of its model does not answer.
    """
    if version.exported:
        return _exported(version.exported)
    fetched = tempfile.TemporaryDirectory(prefix="lectern-version-", ignore_cleanup_errors=True)
    try:
        model = _model(version, fetched.name)
    except BaseException:
        fetched.cleanup()
        raise

    def predict(texts: list[str], knobs: Mapping[str, object]) -> pd.DataFrame:
        predicted = model.predict(texts, params=dict(knobs) or None)
        if "fallback" in predicted:
            return predicted
        return answer(texts, predicted["candidates"].tolist(), PLAIN)  # a version from before keyphrases stood in

    weakref.finalize(predict, fetched.cleanup)  # not before: a model may go on reading
    return predict


def _model(version: Version, scratch: str) -> mlflow.pyfunc.PyFuncModel:
    does_not_load = f"Version {version.number} of '{version.name}' does not load"
    try:
        folder = _files(f"models:/{version}", scratch)
    except Exception as error:  # of whatever store its model is in
        raise in_our_words(error) or Rejected(f"{does_not_load}: {error}") from error
    if _is_of_other_code(Path(folder)):
        _log.warning(
            "Version %s of '%s' was registered with other code than is installed here, which writes its titles now: "
            "they may differ from those it was judged by. `lectern register` makes a version with this code.",
            version.number,
            version.name,
        )
    try:
        return mlflow.pyfunc.load_model(folder)
    except Exception as error:  # whatever a damaged version raises, the user wants to know which one it is
        raise Rejected(f"{does_not_load}: {error}") from error


def _is_of_other_code(folder: Path) -> bool:
    """Whether the version in `folder` carries other code than ours, which Python has loaded already."""
    carried = folder / "code" / pipeline.__name__
    return carried.is_dir() and code_that_writes_titles(carried) != code_that_writes_titles(_OURS)


def _files(uri: str, scratch: str) -> str:
    """The folder of a version's files: where they are if that is on this machine, else in `scratch`."""
    return mlflow.artifacts.download_artifacts(uri, dst_path=None if is_here(store_of(uri)) else scratch)


def _exported(folder: Path) -> Predict:
    require_extra("fast", user="An exported version")
    from pipeline.exports.fast_titler import FastTitler  # loads a library of its own

    titler = FastTitler(folder)
    return lambda texts, knobs: answer(texts, titler.titles(texts, knobs), titler.style)


def writer_of(version: Version) -> Write:
    """Texts in, out a title for each.

    Raises:
        Rejected: the version does not load.
    """
    predict = load(version)

    def write(texts: list[str]) -> list[Shown]:
        return [Shown(*row) for row in predict(texts, {})[["title", "fallback"]].itertuples(index=False)]

    return write


def present_version(*, fast: bool = False) -> Version:
    """The champion, else the challenger.

    Args:
        fast: as `lectern export` has converted it.

    Raises:
        Rejected: there is neither.
        UsageError: it has not been exported.
    """
    found = version_to_use(connect(), RegisterSettings.read().name)
    version = as_version(found)
    return _with_export(version, _md5(found)) if fast else version


def as_version(found: ModelVersion) -> Version:
    """What the registry has found, to be loaded."""
    name, number = found.name, str(found.version)
    return Version(name, number, f"{mlflow.get_tracking_uri()} {name}/{number} {_md5(found)}")


def _md5(found: ModelVersion) -> str:
    return found.tags.get("model.md5", "")


def _with_export(version: Version, md5: str) -> Version:
    from pipeline.exports.export_card import ExportCard  # loads torch

    folder = EXPORTS / version.name / version.number
    card = ExportCard.read(folder) if folder.exists() else None
    if card is None or card.model_md5 != md5:
        raise UsageError(f"Version {version} is not exported in {folder}. Run `lectern export {version.number}` first.")
    return replace(version, identity=f"{version.identity} {card.weights} {card.made}", exported=folder)


@dataclass(frozen=True)
class Titled:
    """Titles by text, and where they are kept until their reader has written them down.

    fallbacks: the texts whose titles are keyphrases, since the model wrote nothing of use.
    """

    titles: dict[str, str]
    fallbacks: frozenset[str]
    kept: Path

    def written(self, text: str) -> str:
        """The title that the model itself wrote for `text`; empty where that was of no use."""
        return "" if text in self.fallbacks else self.titles[text]

    def forget(self) -> None:
        """Removes what was kept for going on."""
        shutil.rmtree(self.kept, ignore_errors=True)


def title_texts(texts: Iterable[str], version: Version) -> Titled:
    """A title for each distinct text. What an interrupted call over the same texts had finished is not done again.

    Raises:
        Rejected: the version does not load.
    """
    distinct = longest_first(texts)
    digest = hashlib.sha256(json.dumps([version.identity, *distinct]).encode()).hexdigest()
    kept = KEPT / digest[:32]
    titles: dict[str, Shown] = {}
    with tqdm(total=len(distinct), desc="titles", unit="text", disable=not sys.stderr.isatty()) as bar:
        for chunk in chunks(distinct):
            file = kept / f"{len(titles):08d}.json"
            try:
                written = [Shown(*row) for row in json.loads(file.read_text(encoding="utf-8"))]
            except FileNotFoundError:
                written = writer_of(version)(chunk)
                write_json(file, written)
            titles |= zip(chunk, written, strict=True)
            bar.update(len(chunk))
            if bar.disable:
                _log.info("%s of %s texts have their title", f"{len(titles):,}", f"{len(distinct):,}")
    return Titled(
        {text: shown.title for text, shown in titles.items()},
        frozenset(text for text, shown in titles.items() if shown.fallback),
        kept,
    )


def longest_first(texts: Iterable[str]) -> list[str]:
    """Each distinct text once, next to those of like length, so that little is padded."""
    return sorted(set(texts), key=lambda text: (-len(text), text))


def chunks(texts: list[str]) -> Iterator[list[str]]:
    """`texts` in parts of `CHUNK`."""
    return (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
