"""Connect to MLflow, and log trainings, searches and evaluations: one run per training."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS
from mlflow.utils.time import get_current_time_millis
from sqlalchemy.exc import DBAPIError

from pipeline.experiments import main_state
from pipeline.registry.lineage import md5
from pipeline.registry.outages import tracking_unavailable, translate_error
from pipeline.registry.tracking_store import artifact_root, create_database
from pipeline.registry.unfinished_runs import open_run

if TYPE_CHECKING:
    from pipeline.evaluation.results import ModelMetrics

log = logging.getLogger(__name__)

EXPERIMENT = "lectern"
_PREDICTIONS = "predictions.json"


def connect() -> MlflowClient:
    """Return a client of the tracking server; create the database and the experiment first if they are missing.

    Raises:
        TemporaryFailure: the server does not answer.
        UsageError: a new shared database has no place for artifacts, or a package that connects to it is missing.
    """
    try:
        # Processes that start on a new database at once would all migrate it, and most of them would crash.
        with FileLock(main_state() / "mlflow.lock"):
            create_database(mlflow.get_tracking_uri())
            if mlflow.get_experiment_by_name(EXPERIMENT) is None:
                _create_experiment()
            mlflow.set_experiment(EXPERIMENT)
    except (MlflowException, DBAPIError, ModuleNotFoundError) as error:
        if known := translate_error(error):
            raise known from None
        if isinstance(error, MlflowException):
            raise tracking_unavailable(error.message) from None
        raise
    return MlflowClient()


def _create_experiment() -> None:
    try:
        mlflow.create_experiment(EXPERIMENT, artifact_location=artifact_root(mlflow.get_tracking_uri()))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another machine created it at the same time
            raise


@contextmanager
def training_run(
    name: str,
    *,
    params: dict[str, object],
    tags: dict[str, str],
    splits: dict[str, Path],
    run_id: str | None = None,
    nested: bool = False,
) -> Iterator[str]:
    """Open the MLflow run of a training and yield its id. The run fails if the block fails.

    Args:
        splits: parquet files by split name; logged as datasets with DVC's hash as their digest.
        run_id: the run of the same training before it was killed; it is continued if this tracking server knows it.
        nested: make the run a child of the open run.
    """
    client = connect()
    known = _known(client, run_id)
    with open_run(client, EXPERIMENT, name, run_id=known, tags=tags, nested=nested, system_metrics=True) as run:
        # MLflow refuses to change a param, so a continued run keeps the values that it started with.
        mlflow.log_params({name: value for name, value in params.items() if name not in run.data.params})
        for split, path in splits.items():
            dataset = mlflow.data.from_pandas(
                pd.read_parquet(path, columns=["course_title", "lesson_num", "title", "text"]),
                source=path.as_posix(),
                targets="title",
                name=split,
                digest=md5(path),
            )
            mlflow.log_input(dataset, context=split)
        yield run.info.run_id


@contextmanager
def search_run(name: str, run_id: str | None, *, params: dict[str, object], tags: dict[str, str]) -> Iterator[str]:
    """Open the MLflow run of a search, the parent of its trials' runs, and yield its id.

    The run fails if the block fails.

    Args:
        run_id: the run of the same search before it was interrupted; it is continued if this tracking server knows it.
    """
    client = connect()
    with open_run(client, EXPERIMENT, name, run_id=_known(client, run_id), tags=tags) as run:
        mlflow.log_params(params)
        yield run.info.run_id


def _known(client: MlflowClient, run_id: str | None) -> str | None:
    return run_id if run_id and find_run(client, run_id) else None


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run with that id; None if this tracking server does not know it.

    A training that DVC restored from its cache may have been logged elsewhere.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def log_evaluation(client: MlflowClient, run_id: str, metrics: ModelMetrics, predictions: pd.DataFrame) -> None:
    """Log scores and the table of predictions to the run of the training, if this tracking server knows it.

    It may be called again after a failure: the scores, which MLflow would store twice, come last.
    """
    if find_run(client, run_id) is None:
        log.warning(
            "MLflow at %s does not know run %s. Its scores are in reports/ only.", mlflow.get_tracking_uri(), run_id
        )
        return
    client.set_tag(run_id, "bertscore_model", metrics.bertscore_model)
    # `log_table` would append to the table of an earlier evaluation. This replaces it; the tag makes MLflow show it.
    client.log_text(run_id, predictions.to_json(orient="split", index=False), _PREDICTIONS)
    client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": _PREDICTIONS, "type": "table"}]))
    now = get_current_time_millis()
    scores = {
        f"{split}.{name}": value for split in ("validation", "test") for name, value in getattr(metrics, split).items()
    }
    client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in scores.items()])


def has_evaluation(run: Run) -> bool:
    """Return whether `log_evaluation` has logged to the run."""
    return "test.rouge1" in run.data.metrics
