"""A version tried as it will be served: loaded by MLflow in a process of its own, and asked for titles."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Refused, Unavailable

_CHILD = Path(__file__).with_name("trial_child.py")


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    titles: list[str]  # one a text, as the model wrote it: what stands in for a title is not the model's merit
    seconds_a_title: float  # of this machine, the model loaded
    megabytes: float  # that its files take


def try_version(name: str, number: str, texts: list[str]) -> Trial:
    """The titles that version `number` of `name` gives to `texts`.

    Raises:
        Refused: it does not load, or fails on a text.
        Unavailable: that cannot be known now: MLflow does not answer, or the process was ended from outside.
    """
    done = subprocess.run(
        [sys.executable, "-P", str(_CHILD), f"models:/{name}/{number}"],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return Trial(**json.loads(done.stdout.splitlines()[-1]))
    last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    if done.returncode < 0:
        raise Unavailable(
            f"Version {number} of '{name}' could not be tried: signal {-done.returncode} ended it, as too little "
            "memory may. Give the same command again."
        )
    if done.returncode == Unavailable.exit_code:
        raise Unavailable(f"Version {number} of '{name}' could not be tried: {last[0]}")
    raise Refused(f"Version {number} of '{name}' does not work as it would be served: {last[0]}")
