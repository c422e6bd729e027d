"""Title many texts with one version: in batches, equal texts once, and resumable after an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pipeline.files import write_json
from pipeline.monitoring.batch_log import log_batch
from pipeline.paths import STATE
from pipeline.registry.fallback_title import Shown
from pipeline.titles.served_version import ServedVersion, load_titler

RESUME_FOLDER = STATE / "titles"
CHUNK = 16
"""Texts whose titles are saved together. An interruption loses at most one chunk."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchTitles:
    """The titles of a batch by text, and the files from which an interrupted batch resumes.

    version: the version that wrote them.
    shown: the title of each text by itself, with its candidates.
    """

    version: ServedVersion
    shown: dict[str, Shown]
    resume_folder: Path

    def log(self, texts: Sequence[str], minutes: Sequence[float] | None = None) -> None:
        """Log measurements of titled texts. The pretrained model has no training split to compare them with.

        Args:
            minutes: as for `log_batch`.
        """
        if self.version.is_registered:
            shown = [self.shown[text] for text in texts]
            own = ["" if each.fallback else each.title for each in shown]
            log_batch(texts, own, str(self.version), minutes)

    def discard_resume_files(self) -> None:
        """Remove the files for resuming. Call this once the titles are saved elsewhere."""
        shutil.rmtree(self.resume_folder, ignore_errors=True)


def title_texts(texts: Iterable[str], version: ServedVersion) -> BatchTitles:
    """Title each distinct text. After an interruption, the same call resumes.

    Raises:
        Rejected: the version cannot be loaded.
        TemporaryFailure: the store of its files does not answer.
    """
    distinct = longest_first(texts)
    digest = hashlib.sha256(json.dumps([version.identity, *distinct]).encode()).hexdigest()
    resume_folder = RESUME_FOLDER / digest[:32]
    titles: dict[str, Shown] = {}
    with tqdm(total=len(distinct), desc="titles", unit="text", leave=None, disable=not sys.stderr.isatty()) as bar:
        for chunk in chunks(distinct):
            file = resume_folder / f"{len(titles):08d}.json"
            try:
                written = [Shown(*row) for row in json.loads(file.read_text(encoding="utf-8"))]
            except FileNotFoundError:
                written = load_titler(version)(chunk)
                write_json(file, written)
            titles |= zip(chunk, written, strict=True)
            bar.update(len(chunk))
            if bar.disable:
                _log.info("%s of %s texts titled", f"{len(titles):,}", f"{len(distinct):,}")
    return BatchTitles(version, titles, resume_folder)


def longest_first(texts: Iterable[str]) -> list[str]:
    """Sort the distinct texts by length, so that the texts of a batch need little padding."""
    return sorted(set(texts), key=lambda text: (-len(text), text))


def chunks(texts: list[str]) -> Iterator[list[str]]:
    """Split `texts` into parts of `CHUNK`."""
    return (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
