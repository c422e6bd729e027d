"""Translate errors of MLflow, its database and its artifact store into Lectern's errors, and retry what may pass."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError

from pipeline import machine_errors
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds that a finished result waits for a server that does not answer, or for room on a disk."""

_MAY_PASS = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "IO_ERROR"}
DAMAGED = re.compile(r"file is not a database|database disk image is malformed")  # SQLite's messages
_LOCKED = re.compile(r"database is locked")
_BUCKETS = ("boto3", "botocore", "s3transfer")
_IN_A_BUCKET = re.compile(r"artifacts (?:from|in) s3://")  # MLflow's message, before the bucket's own
_ANSWER = re.compile(r"An error occurred \((\w+)\)")  # botocore's message
_NOT_THERE = {"404", "NoSuchKey", "NoSuchBucket"}
_TEAM_PACKAGES = ("boto3", "botocore", "psycopg2")


def translate_error(error: Exception) -> TemporaryFailure | Rejected | UsageError | None:
    """Return Lectern's error for `error`; None if its cause is not the machine, a server, a database or a bucket."""
    if isinstance(error, TemporaryFailure | Rejected | UsageError):
        return error
    if of_machine := machine_errors.translate_error(error):
        return of_machine
    match error:
        case ModuleNotFoundError(name=str(name)) if name in _TEAM_PACKAGES:
            return UsageError(
                f"The database or the bucket that the environment names needs {name}, which is not installed. "
                "Run: pip install --no-deps -r requirements-team.txt"
            )
        case MlflowException() | DBAPIError():
            return _translate_mlflow(error)
        case _ if type(error).__module__.partition(".")[0] in _BUCKETS:
            return _bucket_unavailable(str(error))
    return None


def _translate_mlflow(error: MlflowException | DBAPIError) -> TemporaryFailure | Rejected | None:
    text = str(error)
    if DAMAGED.search(text):
        return Rejected(
            f"MLflow's database {_address()} is damaged. Restore the last backup (`lectern restore`), or move the file "
            "away: the next run then creates an empty database, without the earlier versions."
        )
    if _LOCKED.search(text):
        return TemporaryFailure(
            f"MLflow's database {_address()} has been locked by another process for too long. Wait for that process or "
            "stop it, then run the command again."
        )
    if isinstance(error, DBAPIError):
        return tracking_unavailable(str(error.orig).strip())
    if _IN_A_BUCKET.search(text):
        return _translate_bucket(error)
    return tracking_unavailable(error.message) if error.error_code in _MAY_PASS else None


def _translate_bucket(error: MlflowException) -> TemporaryFailure | Rejected:
    """Translate an error of a bucket. Only its own answer proves that files are missing; other errors are temporary."""
    why = " ".join(error.message.split())
    # The message may hold the answers for several files. After a listing, MLflow's code says that there are none.
    answers = set(_ANSWER.findall(why))
    if error.error_code == "RESOURCE_DOES_NOT_EXIST" or (answers and answers <= _NOT_THERE):
        return Rejected(f"The files are no longer in the bucket of MLflow's artifacts: {why}")
    return _bucket_unavailable(why)


def _bucket_unavailable(why: str) -> TemporaryFailure:
    return TemporaryFailure(
        f"The bucket of MLflow's artifacts cannot be read: {why} "
        "Check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    )


def retry(send: Callable[[], None], waiting: str) -> None:
    """Call `send` until it succeeds, for at most `PATIENCE` seconds.

    Args:
        send: a function that may be called again after it failed.
        waiting: the subject of the log line "… waits".

    Raises:
        TemporaryFailure: the last attempt failed too.
    """
    deadline = time.monotonic() + PATIENCE
    while failure := attempt(send):
        if time.monotonic() > deadline:
            raise failure
        log.warning("%s %s waits and is sent again.", failure, waiting)
        time.sleep(1)


def attempt(send: Callable[[], None]) -> TemporaryFailure | None:
    """Call `send` and return its failure if the failure is temporary; raise any other error."""
    try:
        send()
    except Exception as error:
        failure = translate_error(error)
        if not isinstance(failure, TemporaryFailure):
            raise
        return failure
    return None


def tracking_unavailable(why: str) -> TemporaryFailure:
    """Return the error for a tracking server that does not work as it should."""
    return TemporaryFailure(
        f"MLflow at {_address()} does not answer: {why} "
        "Start it (`lectern up`), or set MLFLOW_TRACKING_URI to a server that runs."
    )


def _address() -> str:
    return hide_passwords(mlflow.get_tracking_uri())
