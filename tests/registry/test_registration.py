"""Registered versions: their identity, the served model, and their use as checkpoints."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from transformers import PreTrainedModel

from pipeline.errors import Rejected
from pipeline.maintenance.state import removable_state
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.checkpoints import ModelSettings, load_model, open_checkpoint
from pipeline.registry.lineage import md5
from pipeline.registry.registration import log_served_model
from pipeline.registry.tracking import connect
from pipeline.registry.versions import list_versions
from pipeline.search.search import search
from pipeline.stages import train
from pipeline.training import prepare
from tests.models.small import GREEDY
from tests.registry.server import TrackingServer
from tests.registry.small import NAME, aliases, make_champion, register, save_small_model
from tests.training.small import fill_project, mlflow_runs


def test_the_newest_version_is_the_challenger(three_versions: MlflowClient) -> None:
    assert aliases(three_versions) == {"challenger": "3"}


def test_registering_the_same_model_again_reuses_its_version_as_challenger(three_versions: MlflowClient) -> None:
    assert int(register(three_versions, Path("model"), num_beams=1).version) == 1
    assert aliases(three_versions) == {"challenger": "1"}
    assert len(list_versions(three_versions, NAME)) == 3


def test_the_champion_can_be_a_checkpoint(three_versions: MlflowClient) -> None:
    checkpoint = f"models:/{NAME}@champion"
    settings = ModelSettings(family="causal", checkpoint=checkpoint, max_source_tokens=48, max_target_tokens=12)
    with pytest.raises(Rejected, match=r"has no 'models:/titles@champion': .* champion .*`lectern promote`"):
        open_checkpoint(settings, [])
    make_champion(three_versions, 2)
    model, tokenizer = open_checkpoint(settings, [])
    registered, its_tokenizer, _ = load_model(Path("model"))
    assert all(torch.equal(weight, registered.state_dict()[name]) for name, weight in model.state_dict().items())
    assert tokenizer("why graphs matter")["input_ids"] == its_tokenizer("why graphs matter")["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("work", ["train", "search"])
def test_a_training_or_search_keeps_its_checkpoint_when_the_alias_moves(
    work: str, three_versions: MlflowClient, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = {"family": "causal", "checkpoint": f"models:/{NAME}@champion", "scratch": None}
    fill_project(Path.cwd(), examples, {**checkpoint, "max_source_tokens": 48, "max_target_tokens": 12}, epochs=1)
    other = save_small_model(tmp_path / "other", examples.assign(title="Another"), "causal")
    make_champion(three_versions, 2)
    newest = int(register(three_versions, other).version)
    opened, open_as_usual = [], prepare.open_checkpoint

    def as_the_alias_moves(settings: ModelSettings, texts: list[str]) -> tuple[PreTrainedModel, object]:
        make_champion(three_versions, newest)
        opened.append(find_checkpoint(settings.checkpoint))
        return open_as_usual(settings, texts)

    monkeypatch.setattr(prepare, "open_checkpoint", as_the_alias_moves)
    train.run("bart-tiny") if work == "train" else search("bart-tiny", 1)
    assert opened == [find_checkpoint(f"models:/{NAME}/2")]
    tags = [run.data.tags for run in mlflow_runs(three_versions)]
    assert {each["checkpoint"] for each in tags if "checkpoint" in each} == {f"models:/{NAME}/2"}
    assert {each["checkpoint.md5"] for each in tags if "checkpoint" in each} == {md5(opened[0])}


@pytest.fixture
def remote_registry(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A tracking server that keeps the artifacts where only it can read them."""
    server = TrackingServer(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    server.start()
    yield connect()
    server.kill()


@pytest.mark.slow
def test_a_version_on_a_server_is_fetched_once_and_can_be_cleaned_up(
    remote_registry: MlflowClient, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_small_model(tmp_path / "model", examples)
    register(remote_registry, folder)
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    first, second = (find_checkpoint(f"models:/{NAME}@challenger") for _ in range(2))
    assert first == second
    assert load_model(first)[2] == load_model(folder)[2]
    assert not [*temporary.rglob("*.safetensors")]
    for group in removable_state(before=time.time() + 1):
        group.remove()
    assert not first.exists()
    assert find_checkpoint(f"models:/{NAME}/1") == first


OTHER = """
from mlflow import models, pyfunc
class Other(pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input
models.set_model(Other())
"""


def test_a_registered_model_of_another_tool_is_no_checkpoint(project: Path) -> None:
    connect()
    Path("other.py").write_text(OTHER, encoding="utf-8")
    mlflow.pyfunc.log_model(name="model", python_model="other.py", pip_requirements=[], registered_model_name=NAME)
    with pytest.raises(Rejected, match="Lectern did not register"):
        find_checkpoint(f"models:/{NAME}/1")


@pytest.mark.slow
def test_logging_a_model_leaves_no_trace_in_its_folder_or_in_this_process(three_versions: MlflowClient) -> None:
    folder, path = Path("model"), [*sys.path]
    before = md5(folder)
    for settings in (GREEDY, GREEDY.with_overrides({"do_sample": True, "candidates": 4})):
        place = Path(mlflow.artifacts.download_artifacts(log_served_model(folder, settings).model_uri))
        assert not list(place.rglob("__pycache__"))
    assert (md5(folder), sys.path) == (before, path)


SCRIPT = """
import json, mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/titles@challenger")
listed = model.predict(["we talk about graphs", "we talk about threads"])
framed = model.predict(pd.DataFrame({"text": ["we talk about graphs", "we talk about threads"]}))
assert listed.equals(framed) and len(listed) == 2 and list(listed) == ["title", "candidates", "fallback"]
three = model.predict(["we talk about graphs"], params={"num_beams": 3, "candidates": 3})
assert len(three["candidates"][0]) == 3
example = json.loads(model.metadata.get_serving_input(mlflow.artifacts.download_artifacts("models:/titles@challenger")))
assert example.keys() == {"inputs", "params"}
shown = model.predict(example["inputs"], params=example["params"])
assert len(shown) == 2 and all(shown["title"]) and {len(row) for row in shown["candidates"]} == {2}
import pipeline
assert "artifacts" in pipeline.__file__, "the code came from the project, not from the version"
drawn = [model.predict(["we talk about graphs"], params={"do_sample": True, "seed": 7})["title"][0] for _ in range(2)]
assert drawn[0] == drawn[1]
for wrong in (pd.DataFrame({"title": ["a"]}), pd.DataFrame({"text": ["a", None]})):
    try:
        model.predict(wrong)
    except ValueError:
        continue
    raise SystemExit(f"{wrong} was taken")
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param("t5", marks=pytest.mark.hard), "causal"])
def test_a_registered_model_writes_titles_in_a_fresh_process(
    family: str, project: Path, examples: pd.DataFrame, tmp_path: Path
) -> None:
    register(connect(), save_small_model(tmp_path / "model", examples, family))
    # From another folder, so that only the registered code can be imported.
    script = f"import os; os.environ['MLFLOW_TRACKING_URI'] = 'sqlite:///{tmp_path}/mlflow.db'\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
