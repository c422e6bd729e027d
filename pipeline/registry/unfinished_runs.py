"""Keep track of the MLflow runs that are open, and end the runs of killed processes.

A process that writes a run has a marker file in `.lectern/running` and holds a lock for it, which the system releases
when the process dies. A tag of the run names the marker.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run, RunStatus

from pipeline.files import is_locked, make_folder
from pipeline.paths import RUNNING

log = logging.getLogger(__name__)

WRITER_TAG = "lectern.writer"
_RUNNING, _KILLED = (RunStatus.to_string(status) for status in (RunStatus.RUNNING, RunStatus.KILLED))


@contextmanager
def open_run(
    client: MlflowClient,
    experiment: str,
    name: str | None,
    *,
    run_id: str | None = None,
    tags: dict[str, str] | None = None,
    nested: bool = False,
    system_metrics: bool = False,
) -> Iterator[Run]:
    """Open a run of an MLflow experiment. The run fails if the block fails.

    If the process is killed, `end_killed_runs` ends the run later.

    Args:
        name: of the run.
        run_id: an existing run to continue; None for a new run.
        system_metrics: also log the load of the machine: CPU, memory, disk, network and GPUs.
    """
    end_killed_runs(client, experiment)
    make_folder(RUNNING)
    marker = RUNNING / uuid.uuid4().hex
    with FileLock(_lock_of(marker)):
        marker.touch()
        if run_id:
            client.set_tag(run_id, WRITER_TAG, marker.name)
        with mlflow.start_run(
            run_id=run_id,
            run_name=name,
            tags={**(tags or {}), WRITER_TAG: marker.name},
            nested=nested,
            log_system_metrics=system_metrics,
        ) as run:
            yield run
        # If the block fails, the marker stays: the server may not answer, and so not know that the run has ended.
        _remove_marker(marker)


def end_killed_runs(client: MlflowClient, experiment: str) -> None:
    """Set the status of each run whose process was killed to KILLED."""
    for marker in markers_of_killed():
        query = f"tags.`{WRITER_TAG}` = '{marker.name}' and attributes.status = '{_RUNNING}'"
        found = client.get_experiment_by_name(experiment)
        for run in client.search_runs([found.experiment_id], query) if found else ():
            log.warning("MLflow run '%s': its process was killed. Its status is now KILLED.", run.info.run_name)
            client.set_terminated(run.info.run_id, _KILLED)
        _remove_marker(marker)


def markers_of_killed() -> list[Path]:
    """Return the markers whose processes have died."""
    return [path for path in RUNNING.glob("*") if path.suffix != ".lock" and not is_locked(_lock_of(path))]


def _remove_marker(marker: Path) -> None:
    for path in (marker, _lock_of(marker)):
        path.unlink(missing_ok=True)


def _lock_of(marker: Path) -> Path:
    return marker.with_suffix(".lock")
