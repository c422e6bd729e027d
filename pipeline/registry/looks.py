"""Repeated looks at one test split: how many there were, and the level that remains for the next one.

Each version that is judged is another chance for a lucky one to pass. The k-th look at a test split therefore uses the
level alpha / (k * (k + 1)). These levels sum to alpha, so the chance that any equal version passes on this split is at
most alpha, however many are judged. docs/measuring.md explains the choice.
"""

from __future__ import annotations

import json
import time

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

_LOOK = "look."


def record_look(
    client: MlflowClient, name: str, version: ModelVersion, champion: ModelVersion | None, test_md5: str
) -> int:
    """Note that `version` is judged against `champion` on the test split with that hash; return the look's number.

    The same two versions judged again on the same split are the same look. Looks are kept with the registered model,
    where they outlive the versions.
    """
    split = f"{_LOOK}{test_md5}."
    key = f"{split}{version.version}.{champion.version if champion else 'baselines'}"
    looks = {tag: value for tag, value in client.get_registered_model(name).tags.items() if tag.startswith(split)}
    if key in looks:
        return int(json.loads(looks[key])["look"])
    look = len(looks) + 1
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    client.set_registered_model_tag(name, key, json.dumps({"look": look, "when": now}))
    return look


def level_of_look(look: int, alpha: float) -> float:
    """The level of the look with that number, counted from 1."""
    return alpha / (look * (look + 1))
