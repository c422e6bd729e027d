"""The whole pipeline on a small sample: real DVC, real MLflow, real training, the shipped graph."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from pipeline.evaluation.baselines import BASELINES
from pipeline.registry.lineage import md5
from tests.command import lectern
from tests.conftest import ROOT
from tests.whole_project import dvc as _dvc
from tests.whole_project import environment as _environment
from tests.whole_project import make_project
from tests.whole_project import run as _run

CONTESTANTS = ["t5-tiny", "bart-tiny"]
_SECONDS_TO_START = 90

# A model that has learnt for minutes passes no gate.
FORCED = ("--force", "--because", "a rehearsal")


def _lectern(folder: Path, *words: str) -> str:
    done = lectern(*words, cwd=folder, env=_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def _set(folder: Path, section: str, **knobs: object) -> None:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params[section].update(knobs)
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def _changed_stages(folder: Path) -> set[str]:
    """The stale stages, once the settings that others depend on are written."""
    _dvc(folder, "repro", "--quiet", "--single-item", "settings")
    return {stage.partition("@")[0] for stage in json.loads(_dvc(folder, "status", "--json"))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Path:
    """A project in which `dvc repro` has run once, with a small sample and two models."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, CONTESTANTS)
    shutil.copy(empty_tracking, folder)
    _dvc(folder, "repro")
    return folder


@pytest.fixture
def client(trained: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    uri = f"sqlite:///{trained}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def test_every_topic_of_the_sample_becomes_an_example_and_no_line_is_lost(trained: Path) -> None:
    examples = pd.read_parquet(trained / "data/examples/examples.parquet")
    lines = pd.read_parquet(trained / "data/interim/lines.parquet")
    assert len(examples) == 48
    assert examples["lines"].map(len).sum() == len(lines)
    assert pd.read_csv(trained / "data/examples/set_aside.csv").empty


def test_every_contestant_and_every_baseline_is_on_the_leaderboard(trained: Path) -> None:
    leaderboard = json.loads((trained / "reports/leaderboard.json").read_text(encoding="utf-8"))
    models = {row["model"] for row in leaderboard["rows"]}
    assert models == {*CONTESTANTS, "first-words", "frequent-title", "keyphrase"}
    assert leaderboard["best"] in CONTESTANTS


def test_the_report_and_the_data_docs_load_nothing_from_other_hosts(trained: Path) -> None:
    for page in ("reports/report.html", "reports/data_docs/index.html"):
        html = (trained / page).read_text(encoding="utf-8")
        assert "<html" in html
        assert 'src="http' not in html
        assert "url(http" not in html
        assert 'href="http' not in html.replace('<a href="http', "")


def test_a_second_run_finds_nothing_to_do(trained: Path) -> None:
    assert "up to date" in _dvc(trained, "repro")


@pytest.mark.slow
def test_the_flow_finds_nothing_to_do_after_dvc(trained: Path) -> None:
    done = _run(trained, sys.executable, "-m", "lectern", "run")
    assert "nothing" in (done.stdout + done.stderr).lower()
    assert _changed_stages(trained) == set()


@pytest.mark.parametrize(
    ("section", "knobs", "stages"),
    [
        ("compare", {"metric": "rougeL"}, {"compare"}),
        ("train", {"learning_rate": 0.01}, {"train"}),
        ("generate", {"models": {}}, set()),
    ],
)
def test_a_changed_setting_makes_only_its_stages_stale(
    section: str, knobs: dict[str, object], stages: set[str], trained: Path
) -> None:
    kept = (trained / "params.yaml").read_bytes()
    try:
        _set(trained, section, **knobs)
        assert _changed_stages(trained) == stages
    finally:
        (trained / "params.yaml").write_bytes(kept)


def test_files_of_a_former_contestant_do_not_make_compare_or_register_stale(trained: Path) -> None:
    left = [f"models/old/{name}" for name in ("lectern.json", "model.safetensors")]
    left += ["reports/training/old/run.json", "reports/predictions/old.parquet", "reports/results/old.json"]
    try:
        for name in left:
            (trained / name).parent.mkdir(parents=True, exist_ok=True)
            (trained / name).write_text("{}", encoding="utf-8")
        assert _changed_stages(trained) == {"collect"}
        _dvc(trained, "repro", "--single-item", "collect")
        assert _changed_stages(trained) == set()
    finally:
        for name in left:
            (trained / name).unlink(missing_ok=True)
        for folder in ("models/old", "reports/training/old"):
            (trained / folder).rmdir()
        _dvc(trained, "repro", "--single-item", "collect")


def test_another_mlflow_run_does_not_make_titles_and_scores_stale(trained: Path) -> None:
    record = trained / "reports/training/t5-tiny/run.json"
    kept = record.read_text(encoding="utf-8")
    try:
        record.write_text(kept.replace(json.loads(kept)["run_id"], "0" * 32), encoding="utf-8")
        assert _changed_stages(trained) == {"train", "collect"}
    finally:
        record.write_text(kept, encoding="utf-8")


def test_changed_code_makes_its_own_stages_stale(trained: Path) -> None:
    code = trained / "pipeline/evaluation/report.py"
    kept = code.read_bytes()
    try:
        code.write_bytes(kept + b"\n# changed\n")
        assert _changed_stages(trained) == {"report"}
    finally:
        code.write_bytes(kept)


def test_half_written_files_of_a_killed_training_make_nothing_stale(trained: Path) -> None:
    aside = trained / "models/.t5-tiny.ab12cd_9/t5-tiny"
    aside.mkdir(parents=True)
    (aside / "model.safetensors").touch()
    try:
        assert _changed_stages(trained) == set()
    finally:
        shutil.rmtree(aside.parent)


def test_metrics_plots_and_parameters_are_shown_by_dvc(trained: Path) -> None:
    metrics = json.loads(_dvc(trained, "metrics", "show", "--json"))
    assert "reports/metrics/t5-tiny.json" in metrics[""]["data"]
    assert 0 <= metrics[""]["data"]["reports/metrics/stages/joint.json"]["data"]["test"]["soda_c"] <= 1
    page = Path(_dvc(trained, "plots", "show").strip().removeprefix("file://")).read_text(encoding="utf-8")
    (plot,) = re.findall(r'"domain": (\[[^]]*\]), "range": \[\[', page)
    assert sorted(json.loads(plot)) == sorted(CONTESTANTS)
    assert "validation loss by epoch" in page
    kept = (trained / "params.yaml").read_bytes()
    try:
        _set(trained, "train", epochs=5)
        assert json.loads(_dvc(trained, "params", "diff", "--json"))["params.yaml"]["train.epochs"]["new"] == 5
    finally:
        (trained / "params.yaml").write_bytes(kept)


def test_the_run_of_a_training_has_its_lineage(trained: Path, client: MlflowClient) -> None:
    run_id = json.loads((trained / "reports/training/t5-tiny/run.json").read_text(encoding="utf-8"))["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dvc.stage"] == "train@t5-tiny"
    assert run.data.tags["git.commit"] == _run(trained, "git", "rev-parse", "HEAD").stdout.strip()
    assert run.data.tags["git.dirty"] == "false"
    lock = yaml.safe_load((trained / "dvc.lock").read_text(encoding="utf-8"))["stages"]["train@t5-tiny"]
    split = next(dep["md5"] for dep in lock["deps"] if dep["path"] == "data/splits/train.parquet")
    assert run.data.tags["data.train.md5"] == split
    assert split in {given.dataset.digest for given in run.inputs.dataset_inputs}
    assert run.data.params["learning_rate"] == "0.001"
    assert {"train_loss", "validation_loss", "test.rouge1", "validation.bertscore_f1"} <= set(run.data.metrics)
    artifacts = {artifact.path for artifact in client.list_artifacts(run_id)}
    assert {"predictions.json", "model_summary.csv", "batch_preview.txt", "curves.png"} <= artifacts


def test_the_best_model_is_registered_as_the_challenger_with_its_lineage(trained: Path, client: MlflowClient) -> None:
    registered = json.loads((trained / "reports/registered.json").read_text(encoding="utf-8"))
    version = client.get_model_version_by_alias("lectern", "challenger")
    assert int(version.version) == registered["version"]
    assert version.tags["model.md5"] == md5(trained / "models" / registered["model"])
    assert version.tags["data.workbook.md5"] == md5(trained / "data/raw/sample.xlsx")


def test_the_challenger_has_a_card_and_a_complete_lineage(trained: Path) -> None:
    card = _lectern(trained, "card")
    assert f"`{md5(trained / 'data/raw/sample.xlsx')}`" in card
    assert "| learning\\_rate | 0.001 |" in card
    walked = _run(trained, sys.executable, "-m", "lectern", "lineage").stdout
    assert "can still be fetched" in walked
    assert walked.count("work tree, DVC's cache") == 7
    assert _changed_stages(trained) == set()


def test_evaluating_again_replaces_the_table_of_predictions(trained: Path, client: MlflowClient) -> None:
    run_id = json.loads((trained / "reports/training/t5-tiny/run.json").read_text(encoding="utf-8"))["run_id"]
    _lectern(trained, "predict", "t5-tiny")
    _lectern(trained, "score", "t5-tiny")
    logged = json.loads(Path(client.download_artifacts(run_id, "predictions.json")).read_text(encoding="utf-8"))
    assert len(logged["data"]) == len(pd.read_parquet(trained / "reports/predictions/t5-tiny.parquet"))


def test_a_finished_training_leaves_no_checkpoint_to_resume(trained: Path) -> None:
    assert not [*(trained / ".lectern/checkpoints").glob("*")]


def test_registering_again_creates_no_second_version(trained: Path, client: MlflowClient) -> None:
    _lectern(trained, "register")
    assert len(client.search_model_versions("name = 'lectern'")) == 1


@pytest.mark.slow
def test_earlier_settings_make_the_earlier_version_the_challenger_again(trained: Path, client: MlflowClient) -> None:
    kept = (trained / "params.yaml").read_bytes()
    try:
        _set(trained, "generate", default={**yaml.safe_load(kept)["generate"]["default"], "num_beams": 3})
        _dvc(trained, "repro", "--single-item", "settings")
        _dvc(trained, "repro", "--single-item", "register")
        assert str(client.get_model_version_by_alias("lectern", "challenger").version) == "2"
    finally:
        (trained / "params.yaml").write_bytes(kept)
    _dvc(trained, "repro", "--single-item", "settings")
    _dvc(trained, "repro", "--single-item", "register")
    assert str(client.get_model_version_by_alias("lectern", "challenger").version) == "1"


def _two_champions(folder: Path) -> None:
    """Versions 1 and 2, promoted one after the other; the project is again as it was when it made the first."""
    kept = (folder / "params.yaml").read_bytes()
    _lectern(folder, "promote", "1", *FORCED)
    try:
        _set(folder, "generate", default={**yaml.safe_load(kept)["generate"]["default"], "num_beams": 3})
        _lectern(folder, "register")
    finally:
        (folder / "params.yaml").write_bytes(kept)
    _lectern(folder, "promote", "2", *FORCED)
    _lectern(folder, "register")


def _months_pass(folder: Path) -> None:
    features = folder / ".lectern/features/0a1b/1.safetensors"
    features.parent.mkdir(parents=True, exist_ok=True)
    features.touch()
    for path in (*(folder / ".dvc/cache").rglob("*"), *(folder / ".lectern").rglob("*")):
        os.utime(path, (0, 0))
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET start_time = 1000, end_time = 1000")
        database.execute("UPDATE logged_models SET creation_timestamp_ms = 1000, last_updated_timestamp_ms = 1000")


@pytest.mark.hard
def test_a_project_can_be_backed_up_restored_elsewhere_and_cleaned(trained: Path, tmp_path: Path) -> None:
    _two_champions(trained)
    _lectern(trained, "backup", str(tmp_path / "lectern.tar"))
    home, lost = tmp_path / "another place", trained.rename(trained.with_name("lost"))
    try:
        _lectern(tmp_path, "restore", "lectern.tar", str(home))
        _months_pass(home)
        cleaned = _lectern(home, "clean", "--yes")
        assert "features of frozen layers" in cleaned
        assert "Removed." in cleaned
        assert _lectern(home, "clean").strip() == "Nothing to remove."
        assert "Running stage" not in _dvc(home, "repro")
        assert "champion" in _lectern(home, "models")
        assert _lectern(home, "title", "so now we talk about arrays and how to sort them").strip()
        assert "Version 1 " in _lectern(home, "rollback")
        assert "Version 2 " in _lectern(home, "promote", "2", *FORCED)
    finally:
        lost.rename(trained)


@pytest.fixture(scope="module")
def experiment(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy in which one model was trained otherwise by `dvc exp run`, and what that printed."""
    folder = tmp_path_factory.mktemp("experiment") / "project"
    shutil.copytree(trained, folder)
    for words in (
        ("add", "--all"),
        ("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "trained"),
    ):
        _run(folder, "git", *words)
    return folder, _dvc(folder, "exp", "run", "--set-param", "models.t5-tiny.train.epochs=2")


def test_an_experiment_trains_only_the_model_whose_setting_it_overrides(experiment: tuple[Path, str]) -> None:
    folder, said = experiment
    ran = re.findall("Running stage '(.*)'", said)
    assert ran[:2] == ["settings", "train@t5-tiny"]
    assert not [stage for stage in ran if stage.endswith("bart-tiny")]
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    assert {name: params["models"][name]["train"]["epochs"] for name in CONTESTANTS} == {"t5-tiny": 2, "bart-tiny": 1}
    assert len(pd.read_csv(folder / "reports/training/t5-tiny/curves.csv")) == 2
    assert len(pd.read_csv(folder / "reports/training/bart-tiny/curves.csv")) == 1
    assert "version" not in json.loads((folder / "reports/registered.json").read_text(encoding="utf-8"))


def test_dvc_compares_the_scores_of_an_experiment_with_those_committed(experiment: tuple[Path, str]) -> None:
    folder, _ = experiment
    shown = json.loads(_dvc(folder, "metrics", "diff", "--json", "--all", "HEAD"))
    scores = json.loads((folder / "reports/metrics/t5-tiny.json").read_text(encoding="utf-8"))
    assert shown["reports/metrics/t5-tiny.json"]["test.bertscore_f1"]["new"] == scores["test"]["bertscore_f1"]
    assert shown["reports/metrics/t5-tiny.json"]["test.bertscore_f1"]["old"] is not None


def test_the_table_of_experiments_can_be_read(experiment: tuple[Path, str]) -> None:
    words = ("exp", "show", "--only-changed", "--drop", "[^:]*/[^:]*$")
    documented = " ".join((ROOT / "docs/experiments.md").read_text(encoding="utf-8").split())
    assert f"`dvc {shlex.join(words)}`" in documented
    header = next(csv.reader(_dvc(experiment[0], *words, "--csv").splitlines()))
    assert "models.t5-tiny.train.epochs" in header
    assert "reports/metrics/t5-tiny.json:test.bertscore_f1" in header
    assert not [name for name in header if name.startswith(("models/", "settings/", "pipeline/"))]
    metrics = json.loads(_dvc(experiment[0], "metrics", "show", "--json"))[""]["data"]
    scores = {sum(len(scores) for scores in file["data"].values()) for file in metrics.values()}
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["contestants"]
    # If all of their scores and the segmenter's differ, a setting too, and each experiment has a name and a date.
    assert (len(shipped) + len(BASELINES)) * max(scores) + 1 + 1 + 2 <= 40


def test_dvc_fetches_the_best_model_by_its_name(experiment: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = experiment
    tag = ("tag", "--annotate", "--message", "first", "lectern@v1.0.0")
    _run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", *tag)
    _run(tmp_path, sys.executable, "-m", "dvc", "artifacts", "get", str(folder), "lectern")
    card = json.loads((tmp_path / "best_model/lectern.json").read_text(encoding="utf-8"))
    assert card["model"] in CONTESTANTS


def test_scores_are_logged_to_a_repeated_training_with_the_same_model(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, uri = tmp_path / "project", f"sqlite:///{tmp_path}/project/mlflow.db"
    shutil.copytree(trained, folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = MlflowClient(uri)
    again = client.create_run(client.get_experiment_by_name("lectern").experiment_id).info.run_id
    record = folder / "reports/training/t5-tiny/run.json"
    written = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**written, "run_id": again}), encoding="utf-8")
    _lectern(folder, "register")
    results = json.loads((folder / "reports/results/t5-tiny.json").read_text(encoding="utf-8"))
    assert client.get_run(again).data.metrics["test.rouge1"] == results["test"]["rouge1"]


def test_a_passage_gets_candidate_titles(trained: Path) -> None:
    titles = _lectern(trained, "title", "so now we talk about arrays and how to sort them", "--candidates", "2")
    assert len(titles.splitlines()) in (1, 2)  # a model that has learnt for seconds may have but one of use


def test_a_second_clone_pulls_the_results_of_the_first(trained: Path, tmp_path: Path) -> None:
    _dvc(trained, "remote", "add", "--force", "--local", "--default", "shelf", str(tmp_path / "shelf"))
    _dvc(trained, "push", "--quiet")
    clone = tmp_path / "clone"
    shutil.copytree(
        trained, clone, ignore=shutil.ignore_patterns("cache", "tmp", "data", "models", "reports", "mlflow.db")
    )
    _dvc(clone, "pull", "--quiet", check=False)  # reports/registered.json is about a registry, and is not pulled
    for path in (
        "models/t5-tiny/model.safetensors",
        "data/splits/test.parquet",
        "reports/predictions/keyphrase.parquet",
        "reports/metrics/t5-tiny.json",
        "reports/leaderboard.json",
    ):
        assert (clone / path).read_bytes() == (trained / path).read_bytes()


def _answer(url: str, body: dict[str, object] | None = None) -> str:
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(request, data=data, timeout=30) as reply:
        return reply.read().decode()


@pytest.mark.slow
def test_mlflow_serves_the_registered_model(trained: Path, client: MlflowClient) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["models", "serve", "-m", "models:/lectern@challenger", "-p", str(port), "--env-manager", "local"]
    environment = {**_environment(), "MLFLOW_TRACKING_URI": f"sqlite:///{trained}/mlflow.db"}
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words], cwd=trained, env=environment, start_new_session=True
    )
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while True:
            try:
                _answer(f"http://127.0.0.1:{port}/ping")
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, "the model server did not start"
                time.sleep(1)
        body = {
            "inputs": ["we talk about arrays", "we talk about sorting"],
            "params": {"num_beams": 2, "candidates": 2},
        }
        predictions = json.loads(_answer(f"http://127.0.0.1:{port}/invocations", body))["predictions"]
        assert [len(row["candidates"]) for row in predictions] == [2, 2]
        records = {"dataframe_records": [{"text": "we talk about arrays"}]}
        assert len(json.loads(_answer(f"http://127.0.0.1:{port}/invocations", records))["predictions"]) == 1
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


def test_a_training_restored_from_dvcs_cache_keeps_its_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another tracking server knows nothing of the run: the model is registered there all the same."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/other.db"}
    done = lectern("register", cwd=trained, env=environment)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment["MLFLOW_TRACKING_URI"])
    version = MlflowClient(environment["MLFLOW_TRACKING_URI"]).get_model_version_by_alias("lectern", "challenger")
    assert version.tags["data.workbook.md5"] == md5(trained / "data/raw/sample.xlsx")
