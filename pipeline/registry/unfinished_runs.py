"""Which MLflow runs are being written, and the ends of those whose process could not write it any more.

Whoever writes a run has a mark in `.lectern/running`, and beside it a lock, which the system lets go of when the
process dies, however it does. The run names the mark in a tag, from the moment it is there until it has ended.
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

from pipeline.files import make_folder
from pipeline.locks import is_held
from pipeline.paths import RUNNING

log = logging.getLogger(__name__)

WRITER_TAG = "lectern.writer"
_RUNNING, _KILLED = (RunStatus.to_string(status) for status in (RunStatus.RUNNING, RunStatus.KILLED))


@contextmanager
def written_run(
    client: MlflowClient,
    experiment: str,
    name: str | None,
    *,
    run_id: str | None = None,
    tags: dict[str, str] | None = None,
    nested: bool = False,
    system_metrics: bool = False,
) -> Iterator[Run]:
    """Opens a run of the MLflow experiment of that name, a new one where `run_id` is None; it fails if the block does.

    That of a process which is killed meanwhile is ended by `end_killed_runs`.

    Args:
        system_metrics: also log the machine's load while the run is open: processor, memory, disk, network and GPUs.
    """
    end_killed_runs(client, experiment)
    make_folder(RUNNING)
    mark = RUNNING / uuid.uuid4().hex
    with FileLock(_lock_of(mark)):
        mark.touch()
        if run_id:
            client.set_tag(run_id, WRITER_TAG, mark.name)
        with mlflow.start_run(
            run_id=run_id,
            run_name=name,
            tags={**(tags or {}), WRITER_TAG: mark.name},
            nested=nested,
            log_system_metrics=system_metrics,
        ) as run:
            yield run
        # Where the block fails, the mark stays: the server may be away, and not know yet that the run has ended.
        _forget(mark)


def end_killed_runs(client: MlflowClient, experiment: str) -> None:
    """Says of each run that a process of this project was writing when it was killed that it was killed."""
    for mark in killed():
        wanted = f"tags.`{WRITER_TAG}` = '{mark.name}' and attributes.status = '{_RUNNING}'"
        found = client.get_experiment_by_name(experiment)
        for run in client.search_runs([found.experiment_id], wanted) if found else ():
            log.warning("MLflow's run '%s' was left by a process that was killed.", run.info.run_name)
            client.set_terminated(run.info.run_id, _KILLED)
        _forget(mark)


def killed() -> list[Path]:
    """The marks of processes that are no more."""
    return [mark for mark in RUNNING.glob("*") if mark.suffix != ".lock" and not is_held(_lock_of(mark))]


def _forget(mark: Path) -> None:
    for path in (mark, _lock_of(mark)):
        path.unlink(missing_ok=True)


def _lock_of(mark: Path) -> Path:
    return mark.with_suffix(".lock")
