"""A version tried as it will be served: loaded by MLflow in a process of its own, and asked for titles."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from pipeline import machine_errors
from pipeline.data.lesson_openings import remove_opening_mark
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.registry import serving_trial_process

_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGABRT}

# Whoever tries a version may hold the registry meanwhile, which no version that hangs may do for ever. It is an hour to
# fetch and load it, and three times what params.yaml allows a title as shipped: one that is only slow is found to be.
_SECONDS = 3600
_SECONDS_A_TEXT = 30


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    titles: list[str]  # one a text, its first candidate: what stands in for a title is not the model's merit
    seconds_a_title: float  # of this machine, the model loaded
    megabytes: float  # that its files take


class Gone(Rejected):
    """Nothing is left of a version but what the registry says of it."""


def try_version(name: str, number: str, texts: list[str]) -> Trial:
    """The titles that version `number` of `name` gives to `texts`.

    Raises:
        Gone: there is nothing to load.
        Rejected: it does not load, or fails on a text, or does not end.
        TemporaryFailure: that cannot be known now: MLflow does not answer, or the machine has too little of something.
        UsageError: what its artifacts are fetched with is not installed.
    """
    longest = _SECONDS + _SECONDS_A_TEXT * len(texts)
    with TemporaryDirectory(prefix="lectern-") as fetched:  # MLflow leaves what it fetches where it is
        try:
            done = subprocess.run(
                [sys.executable, "-P", serving_trial_process.__file__, f"models:/{name}/{number}"],
                input=json.dumps({"texts": texts, "spoken": [remove_opening_mark(text) for text in texts]}),
                env={**os.environ, "TMPDIR": fetched},
                capture_output=True,
                text=True,
                check=False,
                timeout=longest,
            )
        except subprocess.TimeoutExpired:
            # Rejected, though the machine may be at fault: what is unavailable is tried again, for as long each time.
            raise Rejected(
                f"Version {number} of '{name}' had not titled {len(texts)} texts after {longest / 60:,.0f} minutes, "
                "and was ended. Unless this machine is that slow, it hangs: take another version."
            ) from None
    if done.returncode == 0:
        return Trial(**json.loads(done.stdout.splitlines()[-1]))
    [said] = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
    not_now = f"Version {number} of '{name}' could not be tried: "
    if done.returncode in _FROM_OUTSIDE:
        raise TemporaryFailure(f"{not_now}it was ended, as by too little memory. Give the same command again.")
    lacking = machine_errors.in_our_words(RuntimeError(said))
    if lacking or done.returncode == TemporaryFailure.exit_code:
        raise TemporaryFailure(f"{not_now}{lacking or said}")
    if done.returncode == UsageError.exit_code:
        raise UsageError(f"{not_now}{said}")
    if done.returncode == serving_trial_process.GONE:
        raise Gone(f"Version {number} of '{name}' is gone: {said}")
    raise Rejected(f"Version {number} of '{name}' does not work as it would be served: {said}")
