"""The version that counts, and many titles by it: alike texts once, in batches, going on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mlflow
from tqdm import tqdm

from pipeline.errors import Refused
from pipeline.files import write_json
from pipeline.paths import STATE
from pipeline.registry.stand_in import Shown
from pipeline.registry.tracking import connect
from pipeline.registry.versions import RegisterSettings, version_to_use

KEPT = STATE / "titles"
CHUNK = 64
"""Texts whose titles are kept together: what a kill costs at most."""

_log = logging.getLogger(__name__)

Write = Callable[[list[str]], list[Shown]]


@dataclass(frozen=True)
class Version:
    """A registered version; `identity` changes whenever its titles may."""

    name: str
    number: str
    identity: str

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


@lru_cache(maxsize=1)
def load(version: Version) -> mlflow.pyfunc.PyFuncModel:
    """The model as it is served.

    Raises:
        Refused: it does not load.
    """
    try:
        return mlflow.pyfunc.load_model(f"models:/{version}")
    except Exception as error:  # whatever a damaged version raises, the user wants to know which one it is
        raise Refused(f"Version {version.number} of '{version.name}' does not load: {error}") from error


def writer_of(version: Version) -> Write:
    """Texts in, out a title for each.

    Raises:
        Refused: the version does not load.
    """
    model = load(version)

    def write(texts: list[str]) -> list[Shown]:
        predicted = model.predict(texts)[["title", "fallback"]]
        return [Shown(*row) for row in predicted.itertuples(index=False)]

    return write


def present_version() -> Version:
    """The champion, else the challenger.

    Raises:
        Refused: there is neither.
    """
    name = RegisterSettings.read().name
    found = version_to_use(connect(), name)
    identity = f"{mlflow.get_tracking_uri()} {name}/{found.version} {found.tags.get('model.md5', '')}"
    return Version(name, str(found.version), identity)


@dataclass(frozen=True)
class Titled:
    """Titles by text, and where they are kept until their reader has written them down.

    fallbacks: the texts whose titles are keyphrases, since the model wrote nothing of use.
    """

    titles: dict[str, str]
    fallbacks: frozenset[str]
    kept: Path

    def forget(self) -> None:
        """Removes what was kept for going on."""
        shutil.rmtree(self.kept, ignore_errors=True)


def title_texts(texts: Iterable[str], version: Version) -> Titled:
    """A title for each distinct text. What an interrupted call over the same texts had finished is not done again.

    Raises:
        Refused: the version does not load.
    """
    distinct = longest_first(texts)
    digest = hashlib.sha256(json.dumps([version.identity, *distinct]).encode()).hexdigest()
    kept = KEPT / digest[:32]
    titles: dict[str, Shown] = {}
    with tqdm(total=len(distinct), desc="titles", unit="text", disable=not sys.stderr.isatty()) as bar:
        for chunk in chunks(distinct):
            file = kept / f"{len(titles):08d}.json"
            if not file.is_file():
                write_json(file, writer_of(version)(chunk))
            written = [Shown(*row) for row in json.loads(file.read_text(encoding="utf-8"))]
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
