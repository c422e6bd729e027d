"""What it means for our user that a library could not reach MLflow's server, its database or its artifacts."""

from __future__ import annotations

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError

from pipeline.addresses import hide_passwords
from pipeline.errors import Misused, Unavailable

_MAY_PASS = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "IO_ERROR"}
_BUCKETS = ("boto3", "botocore", "s3transfer")
_OF_THE_TEAM = ("boto3", "botocore", "psycopg2")


def in_our_words(error: Exception) -> Unavailable | Misused | None:
    """`error` as one of ours; None if it says nothing of servers, databases and buckets."""
    match error:
        case ModuleNotFoundError(name=str(name)) if name in _OF_THE_TEAM:
            return Misused(
                f"The database or the bucket that the environment names needs {name}, which is not installed. "
                "Run: pip install --no-deps -r requirements-team.txt"
            )
        case MlflowException() if error.error_code in _MAY_PASS:
            return tracking_away(error.message)
        case DBAPIError():
            return tracking_away(str(error.orig).strip())
        case _ if type(error).__module__.partition(".")[0] in _BUCKETS:
            return Unavailable(
                f"The bucket of MLflow's artifacts does not answer as it should: {error} "
                "AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say how to reach it."
            )
    return None


def tracking_away(why: str) -> Unavailable:
    return Unavailable(
        f"MLflow at {hide_passwords(mlflow.get_tracking_uri())} does not answer as it should: {why} "
        "Start it (`lectern up`), or set MLFLOW_TRACKING_URI to one that runs."
    )
