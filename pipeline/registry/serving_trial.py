"""Try a version as it will be served: MLflow loads it in a process of its own, and it writes titles for texts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from mlflow.entities.model_registry import ModelVersion

from pipeline import machine_errors
from pipeline.data.lesson_openings import remove_opening_mark
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.registry import serving_trial_process

_KILLED = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGABRT}

# The caller may hold the registry lock, so a version that hangs must be stopped. The limits allow an hour to fetch and
# load it, and three times the seconds per title of the shipped params.yaml: a slow version ends and fails that rule.
_LOAD_SECONDS = 3600
_SECONDS_PER_TEXT = 30


@dataclass(frozen=True)
class Trial:
    """The result of a trial."""

    candidates: list[list[str]]  # for each text the titles that the model wrote, best first; never a fallback title
    seconds_a_title: float  # on this machine, without loading the model
    megabytes: float  # size of the version's files

    @property
    def titles(self) -> list[str]:
        """The first candidate for each text."""
        return [own[0] for own in self.candidates]


class VersionFilesMissing(Rejected):
    """The registry knows the version, but its files were deleted."""


def try_version(version: ModelVersion, texts: list[str]) -> Trial:
    """Let `version` write titles for `texts`.

    Raises:
        VersionFilesMissing: there is nothing to load.
        Rejected: it does not load, fails on a text, or does not end.
        TemporaryFailure: MLflow does not answer, or the machine lacks memory or disk space.
        UsageError: a package that fetches its files is not installed.
    """
    which = f"Version {version.version} of '{version.name}'"
    limit = _LOAD_SECONDS + _SECONDS_PER_TEXT * len(texts)
    with TemporaryDirectory(prefix="lectern-") as scratch:  # MLflow leaves the files that it fetches in TMPDIR
        try:
            done = subprocess.run(
                [
                    *(sys.executable, "-P", serving_trial_process.__file__),
                    f"models:/{version.name}/{version.version}",
                ],
                input=json.dumps({"texts": texts, "spoken": [remove_opening_mark(text) for text in texts]}),
                env={**os.environ, "TMPDIR": scratch},
                capture_output=True,
                text=True,
                check=False,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            # Rejected even if the machine is at fault: callers retry a TemporaryFailure, for as long each time.
            raise Rejected(
                f"{which} had not written {len(texts)} titles after {limit / 60:,.0f} minutes and was stopped. It "
                "hangs, unless this machine is very slow. Choose another version."
            ) from None
    if done.returncode == 0:
        return Trial(**json.loads(done.stdout.splitlines()[-1]))
    [message] = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    if done.returncode in _KILLED:
        raise TemporaryFailure(
            f"{which} could not be tried: its process was killed, perhaps for lack of memory. Run the command again."
        )
    lacking = machine_errors.translate_error(RuntimeError(message))
    if lacking or done.returncode == TemporaryFailure.exit_code:
        raise TemporaryFailure(f"{which} could not be tried: {lacking or message}")
    if done.returncode == UsageError.exit_code:
        raise UsageError(f"{which} could not be tried: {message}")
    if done.returncode == serving_trial_process.FILES_MISSING:
        raise VersionFilesMissing(f"The files of version {version.version} of '{version.name}' are missing: {message}")
    raise Rejected(f"{which} fails when it is served: {message}")
