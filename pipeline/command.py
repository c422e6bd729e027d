"""Set up a process for a command: its project folder, its log, and an exit code for every way it can end."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import machine_errors
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.paths import PARAMS
from pipeline.redaction import hide_passwords
from pipeline.terminal import complain, escape_unprintable, report_error

OK, REJECTED, BUG, INTERRUPTED = 0, Rejected.exit_code, 70, 130

_STAGE_OUTPUTS = ("data/", "models/", "reports/", "settings/", "best_model/")

_UNHELPFUL_MESSAGES = {
    # Tied weights are saved once. The trainer reports their other names as lost when it loads its best epoch.
    "transformers.trainer": ("missing keys in the checkpoint",),
    # T5 1.1 checkpoints keep their head apart from the embedding, which is as it should be.
    "transformers.modeling_utils": ("so we will NOT tie them",),
    "transformers.models.led.modeling_led": ("automatically padded",),
    # Logged with a traceback. Lectern's own message comes at the end.
    "mlflow.store.db.utils": ("SQLAlchemy database error",),
    "py.warnings": (
        "Add type hints to the `predict` method",  # they would become the served model's schema
        "The specified dataset source can be interpreted in multiple ways",
        "a better way to train encoder-decoder models",  # about an old version of the library
    ),
}


def run_command(command: Callable[[], object]) -> None:
    """Run `command`. End the process with an exit code and a message if it fails; show a traceback only for a bug."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_PasswordFilter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
    _quieten_libraries()
    escape_unprintable()
    try:
        command()
    except (Rejected, UsageError, TemporaryFailure) as error:
        sys.exit(report_error(error))
    except Exception as error:
        _exit_if_known(error)
        complain(f"{traceback.format_exc()}\nThis is a bug in Lectern. Please report it with the lines above.")
        sys.exit(BUG)


def enter_project() -> None:
    """Make the project's folder the working directory, from any folder inside it.

    Raises:
        UsageError: the working directory is not in a project.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PARAMS).is_file() and (folder / "dvc.yaml").is_file():
            os.chdir(folder)
            return
    raise UsageError(
        f"{here} is not in a Lectern project: no folder above it holds params.yaml and dvc.yaml. Go to one with `cd`."
    )


@contextmanager
def explaining_missing_outputs() -> Iterator[None]:
    """Turn the absence of a file that a stage writes into a UsageError."""
    try:
        yield
    except FileNotFoundError as error:
        missing = str(error.filename or error)  # pyarrow names the file only in the message
        if not missing.startswith(_STAGE_OUTPUTS):
            raise
        raise UsageError(f"{missing} is missing; an earlier stage writes it. Run `dvc repro`.") from None


class _PasswordFilter(logging.Formatter):
    """Hide passwords in all log lines, also those of libraries, which have seen the addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_passwords(super().format(record))


def _quieten_libraries() -> None:
    """Drop messages of libraries that do not help the user."""
    # MLflow sets the level of "mlflow" when it is imported; the monitor of system metrics has a logger of its own.
    mlflow = ("mlflow", "mlflow.system_metrics")
    for chatty in (*mlflow, "httpx", "alembic", "great_expectations", "datasets", "absl", "matplotlib", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # As log records: MLflow sets warning filters of its own, which would take precedence.
    logging.captureWarnings(True)
    for name, phrases in _UNHELPFUL_MESSAGES.items():
        logging.getLogger(name).addFilter(
            lambda record, phrases=phrases: not any(phrase in record.getMessage() for phrase in phrases)
        )


def _exit_if_known(error: Exception) -> None:
    """Exit with a clear message if the cause is the machine or the tracking server."""
    # The check that imports nothing comes first: there may be no memory for an import.
    if known := machine_errors.in_our_words(error):
        sys.exit(report_error(known))
    from pipeline.registry import outages

    if known := outages.in_our_words(error):
        sys.exit(report_error(known))
