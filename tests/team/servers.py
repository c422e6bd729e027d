"""A PostgreSQL server, and a bucket behind an S3 server, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from flows.execution.child_process import Child
from flows.services.service import HOST, free_port

USER, PASSWORD = "lectern", "swordfish"
BUCKET = "lectern-team"
DEADLINE = 60
HOW_TO_INSTALL = "{} is not installed: pip install --no-deps -r requirements-team.txt -r requirements-team-test.txt"


@contextmanager
def postgresql(*databases: str) -> Iterator[str]:
    """Run PostgreSQL and yield `USER:PASSWORD@HOST:PORT`; skip the test if it is not installed."""
    binaries = _binaries()
    psycopg2 = _needed("psycopg2")
    port = free_port()
    # Outside pytest's folders, which the user postgres may not enter.
    folder = Path(tempfile.mkdtemp(prefix="lectern-postgresql-"))
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    as_server = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if as_server:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
    data = ["-D", str(folder / "data")]
    initdb = [str(binaries / "initdb"), *data, "-U", USER, "--pwfile", str(folder / "password"), "--no-sync"]
    subprocess.run([*as_server, *initdb, "--auth=scram-sha-256"], check=True, capture_output=True, cwd="/")
    words = [str(binaries / "postgres"), *data, "-h", HOST, "-p", str(port), "-k", "", "-F"]
    place = f"{USER}:{PASSWORD}@{HOST}:{port}"
    try:
        with (folder / "log").open("wb") as log, Child([*as_server, *words], env=os.environ, log=log) as server:
            for database in databases:
                _create(psycopg2, f"postgresql://{place}/postgres", database, server)
            yield place
    finally:
        shutil.rmtree(folder)


def _binaries() -> Path:
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not on_path and not debian:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return Path(on_path or debian[-1]).parent


def _needed(package: str):
    return pytest.importorskip(package, reason=HOW_TO_INSTALL.format(package))


def _create(psycopg2, address: str, database: str, server: Child) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        assert server.exit_code is None, "PostgreSQL ended"
        try:
            connection = psycopg2.connect(address)
            break
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
    connection.autocommit = True  # a database is not created within a transaction
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database}")


def query(address: str, sql: str) -> list[tuple]:
    with contextlib.closing(_needed("psycopg2").connect(address)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """Run an S3 server and yield the environment variables for `BUCKET`."""
    for package in ("boto3", "moto", "dvc_s3"):
        if find_spec(package) is None:
            pytest.skip(HOW_TO_INSTALL.format(package))
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_ACCESS_KEY_ID": "lectern",
        "AWS_SECRET_ACCESS_KEY": "tunafish",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        _client(environment).create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        server.stop()


def keys(environment: dict[str, str], prefix: str) -> list[str]:
    """Return the names of the objects in the bucket that begin with `prefix`."""
    pages = _client(environment).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def _client(environment: dict[str, str]):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
