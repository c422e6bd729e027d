"""Find the test examples that a version has seen in training or in the selection of its epoch and model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError
from requests import HTTPError

from pipeline.errors import Rejected
from pipeline.models.seen_examples import SEEN, SeenExamples, are_among
from pipeline.registry.outages import tracking_unavailable, translate_error


@dataclass(frozen=True)
class SeenTestExamples:
    """The test examples that a version has seen. Each array is (examples,), booleans.

    Selection counts as well as training: the epoch and the model with the best scores on a split owe these partly to
    luck on its examples, so the scores there are too high.
    """

    trained: np.ndarray
    selected: np.ndarray  # without the examples in `trained`
    unknown: str  # why the version may have seen more examples; "" if it has not

    @property
    def seen(self) -> np.ndarray:
        return self.trained | self.selected

    def summary(self) -> str:
        total = f"of {len(self.trained)} test examples"
        counts = [(self.trained.sum(), "training"), (self.selected.sum(), "validation")]
        found = [f"{count} {total} were in its {split} split" for count, split in counts if count]
        if not found:
            return self.unknown or f"none {total}"
        return f"{' and '.join(found)}. {self.unknown}".rstrip()


def unseen_by_all(versions: Collection[SeenTestExamples]) -> np.ndarray:
    """Return a mask of the examples that none of several versions has seen: (examples,), booleans."""
    return ~np.logical_or.reduce([one.seen for one in versions])


def find_seen(version: ModelVersion, examples: pd.DataFrame) -> SeenTestExamples:
    """Find the `examples` that `version` or any checkpoint in its chain has seen.

    Raises:
        TemporaryFailure: MLflow does not answer.
    """
    seen = _read(version)
    if seen is None:
        none = np.zeros(len(examples), dtype=bool)
        return SeenTestExamples(none, none, f"Unknown: its model folder has no {SEEN}, the list of its examples.")
    trained = are_among(examples, seen.train)
    unknown = f"Unknown for its checkpoint {', '.join(seen.unknown)}." if seen.unknown else ""
    return SeenTestExamples(trained, are_among(examples, seen.validation) & ~trained, unknown)


def _read(version: ModelVersion) -> SeenExamples | None:
    """Read the list in the version's model folder; return None if there is no list, as for other tools' versions."""
    folder = f"models:/{version.name}/{version.version}/artifacts/{version.tags.get('model', '')}"
    try:
        files = [file.path.rpartition("/")[2] for file in mlflow.artifacts.list_artifacts(artifact_uri=folder)]
        return (
            SeenExamples.model_validate_json(mlflow.artifacts.load_text(f"{folder}/{SEEN}")) if SEEN in files else None
        )
    except ValidationError:  # damaged
        return None
    except HTTPError as error:  # the tracking server passes the artifacts on
        if error.response is None or error.response.status_code != HTTPStatus.NOT_FOUND:
            raise tracking_unavailable(str(error)) from None
        return None
    except Exception as error:  # the store may be of any kind
        known = translate_error(error)
        if known and not isinstance(known, Rejected):
            raise known from None
        return None
