"""Repeated looks at one test split: how many there were, and the level that remains for the next one.

Each version that is judged is another chance for a lucky one to pass. The k-th look at a test split therefore uses the
level alpha / (k * (k + 1)). These levels sum to alpha, so the chance that any equal version passes on this split is at
most alpha, however many are judged. docs/measuring.md explains the choice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from filelock import FileLock
from mlflow import MlflowClient

from pipeline.evaluation.comparison import can_claim
from pipeline.files import make_folder
from pipeline.models.seen_examples import hash_of
from pipeline.paths import STATE

_LOOK = "look."


@dataclass(frozen=True)
class Look:
    """One of several comparisons on the same test split. `level` is the chance of a wrong claim in this one."""

    number: int
    level: float
    test_digest: str  # of the test split's examples
    counted: bool = True  # False: no claim is possible, so the next look has the same number

    def __str__(self) -> str:
        not_counted = "" if self.counted else ", not counted: no claim is possible"
        return f"look {self.number} at this test split, level {self.level:.2%}{not_counted}"


def take_look(
    client: MlflowClient, name: str, question: Mapping[str, str], test_digest: str, *, units: int, alpha: float
) -> Look:
    """Count a look at a test split.

    The same question, asked again on the same split, is the same look. Looks are kept with the registered model, where
    they outlive the versions. A look that cannot claim anything is not counted. In one project folder, looks taken at
    the same time wait for one another.

    Args:
        question: all that decides the scores which are compared: the two versions, the metric, the unit.
        test_digest: identifies the test split.
        units: the number of independent observations that are compared.
        alpha: the chance of a wrong claim over all looks at the split.
    """
    split = f"{_LOOK}{test_digest}."
    key = split + hash_of(json.dumps(question, sort_keys=True))
    make_folder(STATE)
    with FileLock(STATE / "looks.lock"):
        taken = {tag: value for tag, value in client.get_registered_model(name).tags.items() if tag.startswith(split)}
        if key in taken:
            number = int(json.loads(taken[key])["look"])
            return Look(number, level_of_look(number, alpha), test_digest)
        number = len(taken) + 1
        level = level_of_look(number, alpha)
        counted = can_claim(units, level)
        if counted:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            client.set_registered_model_tag(name, key, json.dumps({"look": number, "when": now, **question}))
    return Look(number, level, test_digest, counted)


def level_of_look(look: int, alpha: float) -> float:
    """The level of the look with that number, counted from 1."""
    return alpha / (look * (look + 1))
