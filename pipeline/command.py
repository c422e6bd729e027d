"""Set up a process for a command: its project folder, its log, and an exit code for every way it can end."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from pipeline import machine_errors
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.files import write_json
from pipeline.paths import PARAMS
from pipeline.redaction import hide_passwords
from pipeline.terminal import complain, escape_unprintable

OK, REJECTED, BUG, INTERRUPTED = 0, Rejected.exit_code, 70, 130

STAGE_REPORT = "LECTERN_STAGE_REPORT"
"""The environment variable with the path of a file in which a stage reports how it failed."""

_STAGE_OUTPUTS = ("data/", "models/", "reports/", "settings/", "best_model/", "segmenter/")

_UNHELPFUL_MESSAGES = {
    # Tied weights are saved once. The trainer reports their other names as lost when it loads its best epoch.
    "transformers.trainer": ("missing keys in the checkpoint",),
    # T5 1.1 checkpoints keep their head apart from the embedding, which is as it should be.
    "transformers.modeling_utils": ("so we will NOT tie them",),
    "transformers.models.led.modeling_led": ("automatically padded",),
    # Logged with a traceback. Lectern's own message comes at the end.
    "mlflow.store.db.utils": ("SQLAlchemy database error",),
    "py.warnings": (
        "Add type hints to the `predict` method",  # MLflow would use them as the schema of the served model
        "The specified dataset source can be interpreted in multiple ways",
        "a better way to train encoder-decoder models",  # advice for users of an old version of transformers
    ),
}


@dataclass(frozen=True)
class StageReport:
    """Exit code and message of a failed stage. DVC ends with the same exit code after any failure of a stage."""

    exit_code: int
    message: str

    @classmethod
    def read(cls, path: Path) -> StageReport | None:
        """Return the report in the file `path`, or None if the stage wrote none."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write(self, path: Path) -> None:
        """Write the report to the file `path`."""
        write_json(path, asdict(self), durable=False)


def run_command(command: Callable[[], object]) -> None:
    """Run `command`. End the process with an exit code and a message if it fails; show a traceback only for a bug.

    Ctrl-C ends it without a message, with the exit code that shells use for it.

    The exit code and the message also go to the file that the environment variable LECTERN_STAGE_REPORT names.
    """
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_PasswordFilter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
    _quieten_libraries()
    escape_unprintable()
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if known := _known(error):
            _end(known.exit_code, str(known))
        _end(BUG, f"{traceback.format_exc()}\nThis is a bug in Lectern. Please report it with the lines above.")


def _end(exit_code: int, message: str) -> NoReturn:
    complain(message)
    if path := os.environ.get(STAGE_REPORT):
        with suppress(OSError):  # such as a full disk, which may be the message
            StageReport(exit_code, hide_passwords(message)).write(Path(path))
    sys.exit(exit_code)


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
    """Hide passwords in all log lines, also in those of libraries, which may quote addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_passwords(super().format(record))


class _WithoutPhrases(logging.Filter):
    """Drop the log records that contain one of some phrases."""

    def __init__(self, phrases: tuple[str, ...]) -> None:
        super().__init__()
        self._phrases = phrases

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(phrase in message for phrase in self._phrases)


def _quieten_libraries() -> None:
    """Drop messages of libraries that do not help the user."""
    # MLflow sets the level of "mlflow" when it is imported; the monitor of system metrics has a logger of its own.
    mlflow = ("mlflow", "mlflow.system_metrics")
    for chatty in (*mlflow, "httpx", "alembic", "great_expectations", "datasets", "absl", "matplotlib", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Turned into log records, because MLflow's own warning filters would override ours.
    logging.captureWarnings(True)
    for name, phrases in _UNHELPFUL_MESSAGES.items():
        logging.getLogger(name).addFilter(_WithoutPhrases(phrases))


def _known(error: Exception) -> Rejected | UsageError | TemporaryFailure | None:
    """Return an error with a clear message if it is one, or if the cause is the machine or the tracking server."""
    if isinstance(error, Rejected | UsageError | TemporaryFailure):
        return error
    # The check that imports nothing comes first: there may be no memory for an import.
    if of_machine := machine_errors.translate_error(error):
        return of_machine
    from pipeline.registry.outages import translate_error

    return translate_error(error)
