"""The version that is served now: loaded beside the requests, and changed when another one becomes the champion."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords
from pipeline.server.title_queue import Answer
from pipeline.titles.titling import Version, Write

_log = logging.getLogger(__name__)


class Present:
    """Looks again and again at which version counts.

    Args:
        find: the version that counts; raises one of ours where there is none.
        open_version: what writes its titles.
        refresh: seconds between two looks.
    """

    def __init__(
        self, find: Callable[[], Version], open_version: Callable[[Version], Write], *, refresh: float
    ) -> None:
        self._find = find
        self._open = open_version
        self._refresh = refresh
        self._served: tuple[Version, Write] | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="version", daemon=True)
        self.problem: str | None = None  # why there is none, or none newer

    @property
    def version(self) -> str | None:
        """`NAME/NUMBER`; None while none is loaded."""
        return str(self._served[0]) if self._served else None

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join(timeout=self._refresh)

    def write(self, texts: list[str]) -> Answer:
        """Titles by the version of this moment, which is loaded."""
        assert self._served is not None
        version, write = self._served
        return Answer(str(version), write(texts))

    def _keep_up(self) -> None:
        while not self._ending.is_set():
            try:
                self._look()
                self.problem = None
            except (Rejected, UsageError, TemporaryFailure) as error:
                self._say(str(error))
            except Exception as error:  # what serves goes on serving, and looks again
                _log.exception("looking for the version that counts failed")
                self._say(f"{type(error).__name__}: {error}")
            self._ending.wait(self._refresh)

    def _look(self) -> None:
        version = self._find()
        if self._served is None or self._served[0].identity != version.identity:
            self._served = (version, self._open(version))
            _log.info("version %s is served", version)

    def _say(self, problem: str) -> None:
        problem = hide_passwords(problem)  # whoever asks is shown it
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem
