"""Watch the registry and keep the served version loaded. A new champion is loaded while the old version serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pipeline.chapters.segmenter import Segmenter
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords
from pipeline.server.title_queue import WrittenTitles
from pipeline.titles.served_version import ServedVersion, WriteTitles

_log = logging.getLogger(__name__)


class VersionWatcher:
    """Looks up the served version at intervals, in a thread of its own, and loads it if it has changed.

    Args:
        find: looks up the served version.
        load: loads its function for titles.
        load_segmenter: loads what finds its chapters.
        refresh: seconds between two look-ups.
    """

    def __init__(
        self,
        find: Callable[[], ServedVersion],
        load: Callable[[ServedVersion], WriteTitles],
        load_segmenter: Callable[[ServedVersion], Segmenter | None] = lambda _: None,
        *,
        refresh: float,
    ) -> None:
        self._find = find
        self._load = load
        self._load_segmenter = load_segmenter
        self._refresh = refresh
        self._loaded: tuple[ServedVersion, WriteTitles, Segmenter | None] | None = None
        self._writing = threading.Lock()  # tokenizers cannot be used by two threads at once
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="version", daemon=True)
        self.problem: str | None = None
        """Why no version, or no newer version, is loaded."""

    @property
    def version(self) -> str | None:
        """The loaded version as NAME/NUMBER; None until one is loaded."""
        return str(self._loaded[0]) if self._loaded else None

    @property
    def segmenter(self) -> Segmenter | None:
        """The segmenter of the loaded version; None for content vectors."""
        return self._loaded[2] if self._loaded else None

    def open(self) -> None:
        """Start watching."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._thread.join(timeout=self._refresh)

    def write_titles(self, texts: list[str]) -> WrittenTitles:
        """Title texts with the loaded version. Call this only once `version` is set."""
        assert self._loaded is not None
        version, write, _ = self._loaded
        with self._writing:
            return WrittenTitles(str(version), write(texts))

    def suggest_titles(self, text: str, count: int) -> list[str]:
        """Write up to `count` titles for one text with the loaded version, best first.

        Raises:
            TemporaryFailure: no version is loaded yet.
            Rejected: the version writes no title.
        """
        if self._loaded is None:
            raise TemporaryFailure(self.problem or "The model is still loading. Try again in a moment.")
        from pipeline.titles.passage import title_passage  # imports MLflow

        with self._writing:
            return title_passage(text, self._loaded[0], {"candidates": count, "num_beams": count})

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self._update()
                self.problem = None
            except (Rejected, UsageError, TemporaryFailure) as error:
                self._report(str(error))
            except Exception as error:  # the loaded version still serves, and the next look-up may succeed
                _log.exception("the look-up of the served version failed")
                self._report(f"{type(error).__name__}: {error}")
            self._closing.wait(self._refresh)

    def _update(self) -> None:
        version = self._find()
        if self._loaded is None or self._loaded[0].identity != version.identity:
            self._loaded = (version, self._load(version), self._load_segmenter(version))
            _log.info("version %s is served", version)

    def _report(self, problem: str) -> None:
        problem = hide_passwords(problem)  # clients can read it
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem
