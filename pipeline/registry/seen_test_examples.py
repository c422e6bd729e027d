"""Examples of today's test split that a version has seen: in a training, or in the choice of its epoch and model."""

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
from pipeline.registry.outages import in_our_words, tracking_away


@dataclass(frozen=True)
class Exposure:
    """A version's exposure to some examples. Each array is (examples,), booleans.

    Selection counts as well as training: the best epoch and the best model on a split are the best partly by luck on
    its examples, and so look better there than they are.
    """

    trained: np.ndarray
    selected: np.ndarray  # by these; never one that is also in `trained`
    unknown: str  # why there may be more; "" where there are none

    @property
    def seen(self) -> np.ndarray:
        return self.trained | self.selected

    def in_words(self) -> str:
        total = f"of {len(self.trained)} test examples"
        counts = [(self.trained.sum(), "training"), (self.selected.sum(), "validation")]
        found = [f"{count} {total} were in its {split} split" for count, split in counts if count]
        if not found:
            return self.unknown or f"none {total}"
        return f"{' and '.join(found)}. {self.unknown}".rstrip()


def unseen_by_all(exposures: Collection[Exposure]) -> np.ndarray:
    """Mask of the examples that none of several versions has seen: (examples,), booleans."""
    return ~np.logical_or.reduce([one.seen for one in exposures])


def exposure(version: ModelVersion, examples: pd.DataFrame) -> Exposure:
    """The exposure of `version`, along the whole chain of its checkpoints, to `examples`.

    Raises:
        TemporaryFailure: MLflow does not hand out the version's list now.
    """
    seen = _read(version)
    if seen is None:
        nobody = np.zeros(len(examples), dtype=bool)
        return Exposure(nobody, nobody, "Not known: its model folder does not tell which examples it was trained on.")
    trained = are_among(examples, seen.train)
    unknown = f"Not known of its checkpoint {', '.join(seen.unknown)}." if seen.unknown else ""
    return Exposure(trained, are_among(examples, seen.validation) & ~trained, unknown)


def _read(version: ModelVersion) -> SeenExamples | None:
    """Read the list in the version's model folder; return None if it has no list, as a version of another tool."""
    folder = f"models:/{version.name}/{version.version}/artifacts/{version.tags.get('model', '')}"
    try:
        files = [file.path.rpartition("/")[2] for file in mlflow.artifacts.list_artifacts(artifact_uri=folder)]
        return (
            SeenExamples.model_validate_json(mlflow.artifacts.load_text(f"{folder}/{SEEN}")) if SEEN in files else None
        )
    except ValidationError:  # damaged
        return None
    except HTTPError as error:  # of artifacts that the tracking server hands on
        if error.response.status_code != HTTPStatus.NOT_FOUND:
            raise tracking_away(str(error)) from None
        return None
    except Exception as error:  # of whatever store its artifacts are in
        ours = in_our_words(error)
        if ours and not isinstance(ours, Rejected):
            raise ours from None
        return None
