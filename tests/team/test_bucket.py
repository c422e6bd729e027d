"""A champion whose model is in a bucket that answers with different errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient

from flows.services.service import HOST, free_port
from pipeline.errors import Rejected, TemporaryFailure
from pipeline.registry.gate import judge
from pipeline.registry.register_settings import RegisterSettings
from pipeline.registry.serving_trial import try_version
from pipeline.registry.tracking import connect
from tests.command import lectern
from tests.registry.conftest import registry_backup, three_versions  # noqa: F401 - fixtures
from tests.registry.small import NAME
from tests.registry.test_gate import SETTINGS
from tests.team.servers import BUCKET, HOW_TO_INSTALL
from tests.web_server import web_server

GONE = f"s3://{BUCKET}/mlflow/gone"
LISTING = """<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><IsTruncated>false
</IsTruncated>{}</ListBucketResult>"""
ENTRY = "<Contents><Key>{}MLmodel</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Contents>"
ERROR = "<Error><Code>{0}</Code><Message>The bucket says {0}</Message></Error>"


@dataclass
class Answers:
    """Status and error code for listing a folder and for fetching a file; None: success."""

    listed: tuple[int, str] | None = None
    fetched: tuple[int, str] | None = None


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    """A server with the protocol of S3: no real one can be told to refuse a file."""
    pytest.importorskip("boto3", reason=HOW_TO_INSTALL.format("boto3"))
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            lists = "list-type" in query
            status, code = (answers.listed if lists else answers.fetched) or (200, "")
            entries = ENTRY.format(query["prefix"][0]) if lists and answers.fetched else ""
            body = (LISTING.format(entries) if status == 200 else ERROR.format(code)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with web_server(Handler, HOST) as address:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "lectern",
            "AWS_SECRET_ACCESS_KEY": "tunafish",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        yield answers


@pytest.fixture
def gone(project: Path) -> str:
    """Number of a version whose model is at `GONE`."""
    client = connect()
    client.create_registered_model(NAME)
    return client.create_model_version(NAME, GONE)


@pytest.mark.parametrize("listed", [(404, "NoSuchBucket"), None])
def test_a_file_missing_from_the_bucket_is_final(listed: tuple[int, str] | None, bucket: Answers, gone: str) -> None:
    bucket.listed, bucket.fetched = listed, (404, "NoSuchKey")
    with pytest.raises(Rejected, match=f"no longer in the bucket of MLflow's artifacts: .*s3://{BUCKET}"):
        try_version(gone, ["a text"])


@pytest.mark.parametrize(
    ("listed", "fetched"),
    [
        ((403, "AccessDenied"), None),
        ((503, "SlowDown"), None),
        (None, (403, "AccessDenied")),
        (None, (500, "InternalError")),
    ],
)
def test_a_refusal_or_failure_of_the_bucket_is_temporary(
    listed: tuple[int, str] | None, fetched: tuple[int, str] | None, bucket: Answers, gone: str
) -> None:
    bucket.listed, bucket.fetched = listed, fetched
    with pytest.raises(TemporaryFailure, match=rf"could not be tried: The bucket .*s3://{BUCKET}.* AWS_ACCESS_KEY_ID"):
        try_version(gone, ["a text"])


def test_a_bucket_that_does_not_answer_is_temporary(
    bucket: Answers, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{free_port()}")
    with pytest.raises(TemporaryFailure, match="could not be tried: The bucket"):
        try_version(gone, ["a text"])


def test_titling_fails_temporarily_when_the_bucket_fails(bucket: Answers, project: Path) -> None:
    client, name = connect(), RegisterSettings.read().name
    client.create_registered_model(name)
    client.set_registered_model_alias(name, "champion", client.create_model_version(name, GONE).version)
    bucket.listed = (503, "SlowDown")
    done = lectern("title", "so we talk about graphs", cwd=project)
    assert (done.returncode, "AWS_ACCESS_KEY_ID" in done.stderr) == (TemporaryFailure.exit_code, True), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (Answers(), "MLflow has no artifacts of it"),
        (Answers(fetched=(404, "NoSuchKey")), "no longer in the bucket"),
    ],
)
def test_a_champion_missing_from_its_bucket_blocks_no_promotion(
    answers: Answers,
    why: str,
    bucket: Answers,
    three_versions: MlflowClient,  # noqa: F811
) -> None:
    bucket.listed, bucket.fetched = answers.listed, answers.fetched
    champion = three_versions.create_model_version(NAME, GONE)
    verdict = judge(three_versions, three_versions.get_model_version(NAME, "1"), champion, SETTINGS)
    assert verdict.champion is None
    assert why in verdict.rules[-1].found


def test_a_champion_that_cannot_be_fetched_is_not_missing(
    bucket: Answers,
    three_versions: MlflowClient,  # noqa: F811
) -> None:
    bucket.listed = (403, "AccessDenied")
    champion = three_versions.create_model_version(NAME, GONE)
    with pytest.raises(TemporaryFailure, match=r"could not be tried: The bucket .* AccessDenied"):
        judge(three_versions, three_versions.get_model_version(NAME, "1"), champion, SETTINGS)
