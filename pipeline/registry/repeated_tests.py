"""Number the comparisons on one test split, and correct their level for repetition.

Each version that is compared is another chance for a lucky one to pass. The k-th comparison on a test split therefore
uses the level alpha / (k * (k + 1)). These levels sum to alpha, so the chance that any equal version passes on this
split is at most alpha, however many are compared. docs/measuring.md explains the choice.
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

_TAG = "look."
_NUMBER = "look"


@dataclass(frozen=True)
class NumberedComparison:
    """One of several comparisons on the same test split. `level` is the chance of a wrong claim in this one."""

    number: int
    level: float
    test_digest: str  # of the test split's examples
    counted: bool = True  # False: no claim is possible, so the next comparison gets the same number

    def __str__(self) -> str:
        not_counted = "" if self.counted else ", not counted: no claim is possible"
        return f"comparison {self.number} on this test split, level {self.level:.2%}{not_counted}"


def number_comparison(
    client: MlflowClient, name: str, question: Mapping[str, str], test_digest: str, *, units: int, alpha: float
) -> NumberedComparison:
    """Give a comparison on a test split its number and its level, and remember it with the registered model.

    The same question on the same split keeps its number, even after a version is deleted. A comparison that cannot
    claim anything is not counted. Comparisons at the same time in one project folder wait for one another.

    Args:
        name: the registered model.
        question: everything that decides the scores: the two versions, the metric, the unit.
        test_digest: identifies the test split.
        units: the number of independent observations.
        alpha: the chance of a wrong claim over all comparisons on the split.
    """
    split = f"{_TAG}{test_digest}."
    key = split + hash_of(json.dumps(question, sort_keys=True))
    make_folder(STATE)
    with FileLock(STATE / "looks.lock"):
        earlier = {tag: value for tag, value in client.get_registered_model(name).tags.items() if tag.startswith(split)}
        if key in earlier:
            number = int(json.loads(earlier[key])[_NUMBER])
            return NumberedComparison(number, level_of_comparison(number, alpha), test_digest)
        number = len(earlier) + 1
        level = level_of_comparison(number, alpha)
        counted = can_claim(units, level)
        if counted:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            client.set_registered_model_tag(name, key, json.dumps({_NUMBER: number, "when": now, **question}))
    return NumberedComparison(number, level, test_digest, counted)


def level_of_comparison(number: int, alpha: float) -> float:
    """Return the level of the comparison with that number, counted from 1."""
    return alpha / (number * (number + 1))
