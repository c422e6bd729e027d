from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from rich.console import Console
from transformers import PreTrainedModel

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.maintenance.state import state_piles
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.checkpoints import Card, ModelSettings, load_model, open_checkpoint, save_model
from pipeline.registry import versions
from pipeline.registry.gate import Verdict
from pipeline.registry.lineage import md5
from pipeline.registry.serving_trial import Trial
from pipeline.registry.tables import history_table
from pipeline.registry.tracking import connect
from pipeline.search.search import search
from pipeline.stages import train
from pipeline.training import prepare
from tests.models.small import GREEDY, lively_model, small_model
from tests.registry.server import TrackingServer
from tests.training.small import fill_project, mlflow_runs

NAME = "titles"


@pytest.fixture
def client(project: Path) -> MlflowClient:
    return connect()


def _model(folder: Path, examples: pd.DataFrame, family: str = "t5") -> Path:
    # T5 with its first weights writes nothing but padding, and a causal model nothing but a mark.
    model, inputs = small_model(family, examples) if family == "t5" else lively_model(family, examples)
    folder.mkdir(parents=True)
    card = Card(model=folder.name, family=family, checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    save_model(folder, model, inputs.tokenizer, card, "float32")
    return folder


def _register(client: MlflowClient, folder: Path, beams: int = 1) -> ModelVersion:
    settings = GREEDY.model_copy(update={"num_beams": beams})
    tags = {"model": folder.name, "model.md5": md5(folder)}
    return versions.register(client, NAME, folder, settings, run_id="0" * 32, tags=tags)


def _promote(client: MlflowClient, name: str, number: str | None, *, because: str) -> versions.Move:
    """Without a gate."""
    passed = versions.promote(
        client, name, number, because=because, judge=lambda new, _: Verdict(new.version, None, [])
    )
    return passed[0]


def _aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(NAME).aliases.items()}


@pytest.fixture
def three_versions(client: MlflowClient, examples: pd.DataFrame, tmp_path: Path) -> MlflowClient:
    """Versions 1, 2 and 3: one model, written with other settings each time."""
    folder = _model(tmp_path / "model", examples, "causal")
    for beams in (1, 2, 3):
        _register(client, folder, beams)
    return client


def test_registering_the_same_work_twice_makes_one_version(
    client: MlflowClient, examples: pd.DataFrame, tmp_path: Path
) -> None:
    folder = _model(tmp_path / "model", examples)
    first, second = _register(client, folder), _register(client, folder)
    assert (first.version, second.version) == (second.version, first.version)
    assert len(versions.versions(client, NAME)) == 1


def test_the_newest_version_is_the_challenger(three_versions: MlflowClient) -> None:
    assert _aliases(three_versions) == {"challenger": "3"}


def test_work_that_was_registered_before_becomes_the_challenger_again(
    three_versions: MlflowClient, tmp_path: Path
) -> None:
    _register(three_versions, tmp_path / "model", beams=1)
    assert _aliases(three_versions)["challenger"] == "1"


def test_promoting_moves_the_champion_and_says_who_and_why(three_versions: MlflowClient) -> None:
    move = _promote(three_versions, NAME, None, because="reads better")
    assert _aliases(three_versions)["champion"] == "3"
    assert versions.trail(three_versions, NAME) == [move]
    assert (move.before, move.because, bool(move.who)) == (None, "reads better", True)


def test_rollback_goes_back_step_by_step(three_versions: MlflowClient) -> None:
    for number in ("1", "2", "3"):
        _promote(three_versions, NAME, number, because="")
    seen = [versions.rollback(three_versions, NAME, because="").version for _ in range(2)]
    assert seen == ["2", "1"]
    assert _aliases(three_versions)["champion"] == "1"
    with pytest.raises(Rejected, match="no champion to go back to"):
        versions.rollback(three_versions, NAME, because="")


def test_a_rollback_keeps_its_move_with_the_version_as_a_promotion_does(
    three_versions: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "try_version", lambda *_: Trial(["A title"], 0, 0))
    for number in ("1", "2"):
        _promote(three_versions, NAME, number, because="")
    move = versions.rollback(three_versions, NAME, because="titles got longer")
    run_id = three_versions.get_model_version(NAME, "1").run_id
    kept = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{move.evidence}"))
    assert kept == {"move": asdict(move), "verdict": None}
    assert (move.action, move.because, move.forced) == ("rollback", "titles got longer", False)
    assert versions.trail(three_versions, NAME)[-1] == move
    shown = Console(width=300)
    with shown.capture() as captured:
        shown.print(history_table(NAME, [move]))
    assert str(move.evidence) in captured.get()


def test_a_version_that_was_champion_twice_is_gone_back_to_step_by_step(three_versions: MlflowClient) -> None:
    for number in ("1", "2", "1", "3"):
        _promote(three_versions, NAME, number, because="")
    assert [versions.rollback(three_versions, NAME, because="").version for _ in range(3)] == ["1", "2", "1"]


def test_a_promotion_that_was_cut_off_is_nothing_to_go_back_to(three_versions: MlflowClient) -> None:
    for number in ("1", "2", "3"):
        _promote(three_versions, NAME, number, because="")
    three_versions.set_registered_model_alias(NAME, "champion", "2")  # as if killed before the alias moved
    assert versions.rollback(three_versions, NAME, because="").version == "1"


def test_a_promotion_that_was_cut_off_and_then_another_one_is_none_either(three_versions: MlflowClient) -> None:
    for number in ("1", "2"):
        _promote(three_versions, NAME, number, because="")
    three_versions.set_registered_model_alias(NAME, "champion", "1")
    _promote(three_versions, NAME, "3", because="")
    assert versions.rollback(three_versions, NAME, because="").version == "1"


def test_of_two_promotions_on_two_machines_one_is_told_to_judge_again(three_versions: MlflowClient) -> None:
    def judge(version: ModelVersion, _: ModelVersion | None) -> Verdict:
        three_versions.set_registered_model_alias(NAME, "champion", "2")
        return Verdict(version.version, None, [])

    with pytest.raises(TemporaryFailure, match="it is version 2 now"):
        versions.promote(three_versions, NAME, "1", because="", judge=judge)
    assert _aliases(three_versions)["champion"] == "2"
    assert versions.trail(three_versions, NAME) == []


def test_a_rollback_while_another_machine_promotes_is_told_to_look_again(
    three_versions: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in ("1", "2"):
        _promote(three_versions, NAME, number, because="")

    def promoted_meanwhile(*_: object) -> Trial:
        three_versions.set_registered_model_alias(NAME, "champion", "3")
        return Trial(["A title"], 0, 0)

    monkeypatch.setattr(versions, "try_version", promoted_meanwhile)
    with pytest.raises(TemporaryFailure, match="it is version 3 now"):
        versions.rollback(three_versions, NAME, because="")
    assert _aliases(three_versions)["champion"] == "3"
    assert [move.version for move in versions.trail(three_versions, NAME)] == ["1", "2"]


def test_a_champion_that_changes_while_the_evidence_is_sent_stays(
    three_versions: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _promote(three_versions, NAME, "1", because="")
    log_text = MlflowClient.log_text

    def promoted_meanwhile(client: MlflowClient, *words: str) -> None:
        log_text(client, *words)
        three_versions.set_registered_model_alias(NAME, "champion", "3")

    monkeypatch.setattr(MlflowClient, "log_text", promoted_meanwhile)
    with pytest.raises(TemporaryFailure, match="it is version 3 now"):
        _promote(three_versions, NAME, "2", because="")
    assert _aliases(three_versions)["champion"] == "3"
    assert [move.version for move in versions.trail(three_versions, NAME)] == ["1"]


def test_a_promotion_after_a_rollback_can_itself_be_rolled_back(three_versions: MlflowClient) -> None:
    for number in ("1", "2"):
        _promote(three_versions, NAME, number, because="")
    versions.rollback(three_versions, NAME, because="")
    _promote(three_versions, NAME, "3", because="")
    assert versions.rollback(three_versions, NAME, because="").version == "1"


def test_a_champion_set_elsewhere_is_where_a_rollback_starts_from(three_versions: MlflowClient) -> None:
    for number in ("1", "2"):
        _promote(three_versions, NAME, number, because="")
    three_versions.set_registered_model_alias(NAME, "champion", "3")
    assert versions.rollback(three_versions, NAME, because="").version == "2"


def test_a_rollback_to_a_version_that_is_gone_changes_nothing(three_versions: MlflowClient) -> None:
    for number in ("1", "2"):
        _promote(three_versions, NAME, number, because="")
    three_versions.delete_model_version(NAME, "1")
    with pytest.raises(Rejected, match=r"Version 1 .* is gone"):
        versions.rollback(three_versions, NAME, because="")
    assert _aliases(three_versions)["champion"] == "2"
    assert len(versions.trail(three_versions, NAME)) == 2


def test_the_champion_is_a_checkpoint_to_go_on_from(three_versions: MlflowClient, tmp_path: Path) -> None:
    checkpoint = f"models:/{NAME}@champion"
    settings = ModelSettings(family="causal", checkpoint=checkpoint, max_source_tokens=48, max_target_tokens=12)
    with pytest.raises(Rejected, match=r"has no 'models:/titles@champion': .* champion .*`lectern promote`"):
        open_checkpoint(settings, [])
    _promote(three_versions, NAME, "2", because="")
    model, tokenizer = open_checkpoint(settings, [])
    registered, its_tokenizer, _ = load_model(tmp_path / "model")
    assert all(torch.equal(weight, registered.state_dict()[name]) for name, weight in model.state_dict().items())
    assert tokenizer("why graphs matter")["input_ids"] == its_tokenizer("why graphs matter")["input_ids"]


@pytest.mark.parametrize("work", ["train", "search"])
def test_a_training_and_a_search_mean_one_version_though_its_alias_moves_meanwhile(
    work: str,
    three_versions: MlflowClient,
    project: Path,
    examples: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = {"family": "causal", "checkpoint": f"models:/{NAME}@champion", "scratch": None}
    fill_project(project, examples, {**checkpoint, "max_source_tokens": 48, "max_target_tokens": 12}, epochs=1)
    other = _model(tmp_path / "other", examples.assign(title="Another"), "causal")
    _promote(three_versions, NAME, "2", because="")
    newest = str(_register(three_versions, other).version)
    opened, open_as_usual = [], prepare.open_checkpoint

    def as_the_alias_moves(settings: ModelSettings, texts: list[str]) -> tuple[PreTrainedModel, object]:
        _promote(three_versions, NAME, newest, because="")
        opened.append(find_checkpoint(settings.checkpoint))
        return open_as_usual(settings, texts)

    monkeypatch.setattr(prepare, "open_checkpoint", as_the_alias_moves)
    train.run("bart-tiny") if work == "train" else search("bart-tiny", 1)
    assert opened == [find_checkpoint(f"models:/{NAME}/2")]
    tags = [run.data.tags for run in mlflow_runs(three_versions)]
    assert {each["checkpoint"] for each in tags if "checkpoint" in each} == {f"models:/{NAME}/2"}
    assert {each["checkpoint.md5"] for each in tags if "checkpoint" in each} == {md5(opened[0])}


@pytest.fixture
def elsewhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A tracking server that alone has the artifacts."""
    server = TrackingServer(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    server.start()
    yield connect()
    server.kill()


def test_a_version_that_lies_elsewhere_is_fetched_once_and_cleaned_away(
    elsewhere: MlflowClient, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _model(tmp_path / "model", examples)
    _register(elsewhere, folder)
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    first, second = (find_checkpoint(f"models:/{NAME}@challenger") for _ in range(2))
    assert first == second
    assert load_model(first)[2] == load_model(folder)[2]
    assert not [*temporary.rglob("*.safetensors")]
    for pile in state_piles(before=time.time() + 1):
        pile.remove()
    assert not first.exists()
    assert find_checkpoint(f"models:/{NAME}/1") == first


OTHER = """
from mlflow import models, pyfunc
class Other(pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input
models.set_model(Other())
"""


def test_a_registered_model_of_another_kind_is_no_checkpoint(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(OTHER, encoding="utf-8")
    mlflow.pyfunc.log_model(
        name="model", python_model=str(tmp_path / "other.py"), pip_requirements=[], registered_model_name=NAME
    )
    with pytest.raises(Rejected, match="Lectern did not register"):
        find_checkpoint(f"models:/{NAME}/1")


def test_the_champion_is_used_ahead_of_the_challenger(three_versions: MlflowClient) -> None:
    assert versions.version_to_use(three_versions, NAME).version in ("3", 3)
    _promote(three_versions, NAME, "1", because="")
    assert versions.version_to_use(three_versions, NAME).version in ("1", 1)


def test_a_version_that_does_not_load_is_not_gone_back_to(three_versions: MlflowClient, tmp_path: Path) -> None:
    for number in ("1", "2"):
        _promote(three_versions, NAME, number, because="")
    for weights in Path("mlartifacts").rglob("model.safetensors"):
        weights.write_bytes(b"damaged")
    with pytest.raises(Rejected, match="does not work as it would be served"):
        versions.rollback(three_versions, NAME, because="")
    assert _aliases(three_versions)["champion"] == "2"


def test_promoting_what_is_not_there_is_misused(three_versions: MlflowClient) -> None:
    with pytest.raises(UsageError, match="no version 9"):
        _promote(three_versions, NAME, "9", because="")


def test_promoting_the_champion_is_refused(three_versions: MlflowClient) -> None:
    _promote(three_versions, NAME, "2", because="")
    with pytest.raises(Rejected, match="already is the champion"):
        _promote(three_versions, NAME, "2", because="")


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


def test_trying_the_example_leaves_nothing_behind(client: MlflowClient, examples: pd.DataFrame, tmp_path: Path) -> None:
    folder, path = _model(tmp_path / "model", examples, "causal"), [*sys.path]
    before = md5(folder)
    for settings in (GREEDY, GREEDY.with_overrides({"do_sample": True, "candidates": 4})):
        place = Path(mlflow.artifacts.download_artifacts(versions.log_served_model(folder, settings).model_uri))
        assert not list(place.rglob("__pycache__"))
    assert (md5(folder), sys.path) == (before, path)


@pytest.mark.parametrize("family", [pytest.param("t5", marks=pytest.mark.hard), "causal"])
def test_a_registered_model_gives_titles_in_a_fresh_process(
    family: str, client: MlflowClient, examples: pd.DataFrame, tmp_path: Path
) -> None:
    _register(client, _model(tmp_path / "model", examples, family))
    # Run from elsewhere, so that nothing but what was registered can be imported from the working directory.
    script = f"import os; os.environ['MLFLOW_TRACKING_URI'] = 'sqlite:///{tmp_path}/mlflow.db'\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr


def test_a_version_that_gives_no_title_is_not_gone_back_to(
    client: MlflowClient, examples: pd.DataFrame, tmp_path: Path
) -> None:
    for family in ("t5", "causal"):
        _register(client, _model(tmp_path / family, examples, family))
        _promote(client, NAME, None, because="")
    with pytest.raises(Rejected, match="empty title"):
        versions.rollback(client, NAME, because="")
    assert _aliases(client)["champion"] == "2"
