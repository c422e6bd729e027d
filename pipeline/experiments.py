"""DVC experiments (`dvc exp run`): a stage of one may run in a temporary copy of the project, which DVC deletes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pipeline.paths import CONVERTED, FEATURES, FETCHED, RUNNING, STATE

_SQLITE = "sqlite:///"


def experiment() -> str | None:
    """The name of the DVC experiment that this process runs a stage of; None outside of experiments."""
    return os.environ.get("DVC_EXP_NAME")


def main_project() -> Path:
    """The folder of the project, also for an experiment that runs in a copy of it."""
    # DVC sets DVC_ROOT for every stage, and for an experiment to the project that the copy was made from.
    return Path(os.environ.get("DVC_ROOT", "")) if experiment() else Path()


def in_main_project(tracking: str) -> str:
    """The address of an MLflow server or database; a relative SQLite path is taken from the main project.

    Args:
        tracking: as in `MLFLOW_TRACKING_URI`.
    """
    if not experiment() or not tracking.startswith(_SQLITE):
        return tracking
    return _SQLITE + str(main_project() / tracking.removeprefix(_SQLITE))


def share_state() -> None:
    """Let an experiment in a copy of the project use what the main project has already computed and converted.

    Checkpoints stay apart: two experiments may train the same model at the same time.
    """
    if not experiment() or main_project().resolve() == Path.cwd():
        return
    from pipeline.files import make_private_folder  # the package itself imports this module, and needs no more of it

    for state in (STATE, main_project() / STATE):
        make_private_folder(state)
    for folder in (CONVERTED, FEATURES, FETCHED, RUNNING):
        shared = (main_project() / folder).absolute()
        shared.mkdir(exist_ok=True)
        with suppress(FileExistsError):
            folder.symlink_to(shared)
