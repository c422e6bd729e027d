"""What it means for our user that a library could not reach MLflow's server, its database or its artifacts.

Or could not use the machine that this runs on, which whoever logs to a database in a file may be told by that database.
"""

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
"""Seconds that what is done, and has but to be logged, waits for a server that is away, or for room on a disk."""

_MAY_PASS = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "IO_ERROR"}
DAMAGED = re.compile(r"file is not a database|database disk image is malformed")  # SQLite's words
_LOCKED = re.compile(r"database is locked")
_BUCKETS = ("boto3", "botocore", "s3transfer")
_IN_A_BUCKET = re.compile(r"artifacts (?:from|in) s3://")  # MLflow's words, ahead of what it was told there
_ANSWERED = re.compile(r"An error occurred \((\w+)\)")  # botocore's
_NOT_THERE = {"404", "NoSuchKey", "NoSuchBucket"}
_OF_THE_TEAM = ("boto3", "botocore", "psycopg2")


def in_our_words(error: Exception) -> TemporaryFailure | Rejected | UsageError | None:
    """`error` as one of ours; None if it says nothing of the machine, of servers, databases and buckets."""
    if isinstance(error, TemporaryFailure | Rejected | UsageError):
        return error
    if ours := machine_errors.in_our_words(error):
        return ours
    match error:
        case ModuleNotFoundError(name=str(name)) if name in _OF_THE_TEAM:
            return UsageError(
                f"The database or the bucket that the environment names needs {name}, which is not installed. "
                "Run: pip install --no-deps -r requirements-team.txt"
            )
        case MlflowException() | DBAPIError():
            return _of_mlflow(error)
        case _ if type(error).__module__.partition(".")[0] in _BUCKETS:
            return _bucket_away(str(error))
    return None


def _of_mlflow(error: MlflowException | DBAPIError) -> TemporaryFailure | Rejected | None:
    said = str(error)
    if DAMAGED.search(said):
        return Rejected(
            f"MLflow's database {_address()} is damaged. Restore the last backup (`lectern restore`), or move that "
            "file away: the next run begins a new one, which knows nothing of earlier versions."
        )
    if _LOCKED.search(said):
        return TemporaryFailure(
            f"Another process has held MLflow's database {_address()} for too long. Let it end, or end it; then give "
            "the same command again."
        )
    if isinstance(error, DBAPIError):
        return tracking_away(str(error.orig).strip())
    if _IN_A_BUCKET.search(said):
        return _of_bucket(error)
    return tracking_away(error.message) if error.error_code in _MAY_PASS else None


def _of_bucket(error: MlflowException) -> TemporaryFailure | Rejected:
    """What was not read there is gone only where the bucket says so: wrong keys and servers that are down pass."""
    why = " ".join(error.message.split())
    # Of several files at once; where they were only listed, MLflow's code says it.
    answers = set(_ANSWERED.findall(why))
    if error.error_code == "RESOURCE_DOES_NOT_EXIST" or (answers and answers <= _NOT_THERE):
        return Rejected(f"The bucket of MLflow's artifacts no longer has what is looked for: {why}")
    return _bucket_away(why)


def _bucket_away(why: str) -> TemporaryFailure:
    return TemporaryFailure(
        f"The bucket of MLflow's artifacts does not answer as it should: {why} "
        "AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say how to reach it."
    )


def patiently(send: Callable[[], None], waiting: str) -> None:
    """Calls `send`, which may be called again, until it gets through; for `PATIENCE` at the most.

    Args:
        waiting: who waits, as a log names it.

    Raises:
        TemporaryFailure: the server stays away, or what the machine lacks.
    """
    deadline = time.monotonic() + PATIENCE
    while away := attempt(send):
        if time.monotonic() > deadline:
            raise away
        log.warning("%s %s waits until that has passed.", away, waiting)
        time.sleep(1)


def attempt(send: Callable[[], None]) -> TemporaryFailure | None:
    """Calls `send`. Returns why it did not get through, where that may pass."""
    try:
        send()
    except Exception as error:  # MLflow's, or its database's
        away = in_our_words(error)
        if not isinstance(away, TemporaryFailure):
            raise
        return away
    return None


def tracking_away(why: str) -> TemporaryFailure:
    return TemporaryFailure(
        f"MLflow at {_address()} does not answer as it should: {why} "
        "Start it (`lectern up`), or set MLFLOW_TRACKING_URI to one that runs."
    )


def _address() -> str:
    return hide_passwords(mlflow.get_tracking_uri())
