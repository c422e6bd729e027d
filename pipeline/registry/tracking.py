"""MLflow's memory of trainings: one run a training, which its evaluation goes on with."""

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

from pipeline.experiments import main_project
from pipeline.files import make_private_folder
from pipeline.paths import STATE
from pipeline.registry.artifact_store import artifact_root
from pipeline.registry.lineage import md5
from pipeline.registry.outages import in_our_words, tracking_away
from pipeline.registry.tracking_database import create_database
from pipeline.registry.unfinished_runs import written_run

if TYPE_CHECKING:
    from pipeline.evaluation.results import ModelMetrics

log = logging.getLogger(__name__)

EXPERIMENT = "lectern"
_PREDICTIONS = "predictions.json"


def connect() -> MlflowClient:
    """A client of the tracking server, whose experiment exists.

    Raises:
        TemporaryFailure: the server does not answer.
        UsageError: its database is new, and nobody says where artifacts go; or what speaks with it is not installed.
    """
    state = main_project() / STATE
    make_private_folder(state)
    try:
        # Processes that meet on a fresh database migrate it at the same time, and most of them crash.
        with FileLock(state / "mlflow.lock"):
            create_database(mlflow.get_tracking_uri())
            if mlflow.get_experiment_by_name(EXPERIMENT) is None:
                _create_experiment()
            mlflow.set_experiment(EXPERIMENT)
    except (MlflowException, DBAPIError, ModuleNotFoundError) as error:
        if ours := in_our_words(error):
            raise ours from None
        if isinstance(error, MlflowException):
            raise tracking_away(error.message) from None
        raise
    return MlflowClient()


def _create_experiment() -> None:
    try:
        mlflow.create_experiment(EXPERIMENT, artifact_location=artifact_root(mlflow.get_tracking_uri()))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # from another machine, at the same moment
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
    """Opens the MLflow run of a training and yields its id; the run fails if the block does.

    Args:
        splits: what the run reads: split name → parquet file; logged as datasets with DVC's hash as their digest.
        run_id: of the same training, which was killed; its run is gone on with where this tracking server knows it.
        nested: under the run that is open.
    """
    client = connect()
    known = _known(client, run_id)
    with written_run(client, EXPERIMENT, name, run_id=known, tags=tags, nested=nested, system_metrics=True) as run:
        # MLflow takes a param once: where one has changed meanwhile, the run says what it was begun with.
        mlflow.log_params({knob: value for knob, value in params.items() if knob not in run.data.params})
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
    """Opens the MLflow run above those of a search's trials and yields its id; the run fails if the block does.

    Args:
        run_id: of an earlier part of this search, whose run is gone on with where this tracking server knows it.
    """
    client = connect()
    with written_run(client, EXPERIMENT, name, run_id=_known(client, run_id), tags=tags) as run:
        mlflow.log_params(params)
        yield run.info.run_id


def _known(client: MlflowClient, run_id: str | None) -> str | None:
    return run_id if run_id and find_run(client, run_id) else None


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """The run of that id; None where this tracking server does not know it, as when DVC's cache gave the training."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def log_evaluation(client: MlflowClient, run_id: str, metrics: ModelMetrics, predictions: pd.DataFrame) -> None:
    """Log scores and the table of predictions to the run of the training, if this tracking server knows it.

    May be called again after a failure: the scores, which MLflow would count twice, come last.
    """
    if find_run(client, run_id) is None:
        log.warning("MLflow at %s does not know run %s: the scores stay in files", mlflow.get_tracking_uri(), run_id)
        return
    client.set_tag(run_id, "bertscore_model", metrics.bertscore_model)
    # `log_table` would add to what an earlier evaluation logged; this replaces it, and the tag shows it as a table.
    client.log_text(run_id, predictions.to_json(orient="split", index=False), _PREDICTIONS)
    client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": _PREDICTIONS, "type": "table"}]))
    now = get_current_time_millis()
    scores = {
        f"{split}.{name}": value for split in ("validation", "test") for name, value in getattr(metrics, split).items()
    }
    client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in scores.items()])


def has_evaluation(run: Run) -> bool:
    """True if `log_evaluation` has logged to the run."""
    return "test.rouge1" in run.data.metrics
