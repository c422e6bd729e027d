"""Copies of the project: stages of a DVC experiment or of a run with parameters of its own may run in one.

DVC makes the copy of an experiment (`dvc exp run --temp`), and the flow `train` makes the copy of a run. Both are
temporary, so results that must last go to the main project.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pipeline.paths import CONVERTED, FEATURES, FETCHED, RUNNING, STATE

PROJECT_OF_COPY = "LECTERN_PROJECT"
"""The environment variable with the folder of the main project, for a run in a copy of it."""

_SQLITE = "sqlite:///"


def experiment() -> str | None:
    """Return the name of the DVC experiment that this process belongs to; None outside experiments."""
    return os.environ.get("DVC_EXP_NAME")


def main_project() -> Path:
    """Return the folder of the main project: another one than the working directory in a copy of the project."""
    if project := os.environ.get(PROJECT_OF_COPY):
        return Path(project)
    # In an experiment, DVC sets DVC_ROOT to the project that the copy was made from.
    return Path(os.environ.get("DVC_ROOT", "")) if experiment() else Path()


def main_state() -> Path:
    """Make the state folder of the main project private and return it; the folder of a copy is deleted."""
    from pipeline.files import make_private_folder  # the package itself imports this module, and should stay quick

    state = main_project() / STATE
    make_private_folder(state)
    return state


def sqlite_file(tracking: str) -> Path | None:
    """Return the file that an SQLite address names; None for a server or another database.

    Args:
        tracking: the value of `MLFLOW_TRACKING_URI`.
    """
    address = tracking.partition("?")[0]
    return Path(address.removeprefix(_SQLITE)) if address.startswith(_SQLITE) else None


def in_main_project(tracking: str) -> str:
    """Return the address of an MLflow server or database, with a relative SQLite path resolved in the main project."""
    file = sqlite_file(tracking)
    if main_project() == Path() or file is None:
        return tracking
    _, mark, options = tracking.partition("?")
    return f"{_SQLITE}{main_project() / file}{mark}{options}"


def share_state() -> None:
    """Let a copy of the project share the main project's features and converted checkpoints.

    Training checkpoints are not shared: two copies may train the same model at the same time.
    """
    if main_project().resolve() == Path.cwd():
        return
    from pipeline.files import make_private_folder

    main_state()
    make_private_folder(STATE)
    for folder in (CONVERTED, FEATURES, FETCHED, RUNNING):
        shared = (main_project() / folder).absolute()
        shared.mkdir(exist_ok=True)
        with suppress(FileExistsError):
            folder.symlink_to(shared)
