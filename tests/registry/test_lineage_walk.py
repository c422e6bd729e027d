"""`lectern lineage` in a small project with real git, DVC and MLflow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow import MlflowClient

from pipeline.models.checkpoints import ModelSettings
from pipeline.registry.lineage import checkpoint_tags, lineage_tags, md5
from pipeline.registry.tracking import connect
from pipeline.settings import set_params
from tests.command import lectern_here
from tests.conftest import ROOT

PIPELINE = """
stages:
  merge:
    cmd: mkdir -p data/examples && (echo examples && cat book.csv) > data/examples/examples.parquet
    deps: [book.csv]
    outs: [data/examples/examples.parquet]
  split:
    cmd: mkdir -p data/splits && for s in train validation test; do
      (echo $s && cat data/examples/examples.parquet) > data/splits/$s.parquet; done
    deps: [data/examples/examples.parquet]
    outs: [data/splits/train.parquet, data/splits/validation.parquet, data/splits/test.parquet]
  train:
    cmd: mkdir -p models/small && cp data/splits/train.parquet models/small/model.safetensors
    deps: [data/splits/train.parquet]
    outs: [models/small]
"""
ALL = ["version", "run", "model", "code", "train split", "validation split", "test split", "examples", "workbook"]


def run(*words: str | Path) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


def dvc(*words: str | Path) -> None:
    run(sys.executable, "-m", "dvc", *words)


def make(content: str) -> None:
    """The workbook with that in it, all stages up to date, and a commit of it."""
    Path("book.csv").write_text(content, encoding="utf-8")
    dvc("add", "--quiet", "book.csv")
    dvc("repro", "--quiet")
    run("git", "add", ".")
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", content)


def register(*, weights: bool = True, **tags: str) -> str:
    """A version of what the work tree holds; `tags` in place of some of its own."""
    client = connect()
    with mlflow.start_run() as opened:
        if weights:
            client.log_artifacts(opened.info.run_id, "models/small", "model/artifacts/small")
    tags = {**lineage_tags(), "model": "small", "model.md5": md5(Path("models/small")), **tags}
    source, run_id = f"runs:/{opened.info.run_id}/model", opened.info.run_id
    return str(client.create_model_version("lectern", source, run_id=run_id, tags=tags).version)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walked") / "project"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        shutil.copy(ROOT / "params.yaml", folder)
        set_params(["ingest"], {"workbook": "book.csv"})
        (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
        run("git", "init", "--quiet")
        dvc("init", "--quiet")
        Path(".gitignore").write_text("/mlflow.db*\n/mlartifacts/\n/.lectern/\n/book.csv\n", encoding="utf-8")
        dvc("remote", "add", "shelf", folder.parent / "shelf")
        make("first")
        dvc("push", "--quiet", "--remote", "shelf")
        connect().create_registered_model("lectern")
        register()
        make("second")
    return folder


@pytest.fixture
def folder(template: Path, enter_copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project with version 1, whose workbook has changed since."""
    folder = enter_copy(template)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return folder


def walked(number: str) -> tuple[int, dict[str, str], str]:
    """Return the exit code, the places of each thing, and the error message."""
    done = lectern_here("lineage", number)
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines() if line.startswith("│")]
    return done.returncode, {row[1]: row[3] for row in rows}, done.stderr


def cached(digest: str) -> Path:
    return Path(".dvc/cache/files/md5", digest[:2], digest[2:])


def forget(digest: str) -> None:
    cached(digest).unlink()


def tags() -> dict[str, str]:
    return connect().get_model_version("lectern", "1").tags


@pytest.mark.slow
def test_everything_is_found_after_the_work_tree_has_changed(folder: Path) -> None:
    code, places, _ = walked("1")
    assert code == 0
    assert list(places) == ALL
    assert places["model"] == "MLflow, DVC's cache"
    assert places["code"] == "git"
    assert {places[what] for what in ALL[4:]} == {"DVC's cache"}
    _, places, _ = walked(register())
    assert {places[what] for what in ALL[4:]} == {"work tree, DVC's cache"}


def test_a_checkpoint_is_found_until_its_weights_change(folder: Path) -> None:
    weights = Path("started/model.safetensors")
    weights.parent.mkdir()
    weights.with_name("config.json").write_text("{}", encoding="utf-8")
    weights.write_text("first", encoding="utf-8")
    model = ModelSettings(family="bart", checkpoint="started", max_source_tokens=8, max_target_tokens=8)
    version = register(**checkpoint_tags(model))
    assert walked(version)[1]["checkpoint"] == "started"
    weights.write_text("second", encoding="utf-8")
    code, places, said = walked(version)
    assert (code, places["checkpoint"][:7]) == (1, "nowhere")
    assert "checkpoint cannot be fetched" in said


def test_lost_files_are_named_unless_the_default_remote_has_them(folder: Path) -> None:
    lost = tags()["data.train.md5"], tags()["data.workbook.md5"]
    for digest in lost:
        forget(digest)
    code, places, said = walked("1")
    assert code == 1
    assert [what for what, where in places.items() if where.startswith("nowhere")] == ["train split", "workbook"]
    assert "train split, workbook cannot be fetched" in said
    dvc("remote", "default", "shelf")
    code, places, _ = walked("1")
    assert (code, places["workbook"]) == (0, "DVC's remote 'shelf'")


def test_a_damaged_file_counts_as_lost(folder: Path) -> None:
    damaged = cached(tags()["data.test.md5"])
    damaged.chmod(0o600)
    damaged.write_bytes(b"what a broken disk gives")
    code, places, _ = walked("1")
    assert (code, [what for what, where in places.items() if where.startswith("nowhere")]) == (1, ["test split"])
    assert damaged.exists()


def test_files_that_registering_adds_do_not_change_the_hash(folder: Path) -> None:
    number = register()
    run_id = connect().get_model_version("lectern", number).run_id
    for name in ("README.md", "README.html", "generation_config.json"):
        connect().log_text(run_id, "{}", f"model/artifacts/small/{name}")
    assert walked(number)[1]["model"].startswith("MLflow")


def test_a_model_folder_in_the_cache_must_be_complete(folder: Path) -> None:
    number = register(weights=False, **{"model.md5": tags()["model.md5"]})
    assert walked(number)[1]["model"] == "DVC's cache"
    forget(tags()["data.train.md5"])  # its weights have the same content
    code, places, _ = walked(number)
    assert (code, places["model"][:7]) == (1, "nowhere")


@pytest.mark.parametrize("lost", ["model.safetensors", "lectern.json"])
@pytest.mark.parametrize("left", ["", None], ids=["emptied", "gone"])
def test_a_registered_model_must_be_complete(lost: str, left: str | None, folder: Path) -> None:
    Path("models/small/lectern.json").write_text("{}", encoding="utf-8")
    client, number = connect(), register()
    assert walked(number)[1]["model"] == "MLflow, work tree"
    run = client.get_run(client.get_model_version("lectern", number).run_id)
    damaged = Path(urlsplit(run.info.artifact_uri).path, "model/artifacts/small", lost)
    damaged.unlink()
    if left is not None:
        damaged.write_text(left, encoding="utf-8")
    assert walked(number)[1]["model"] == "work tree"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ({"git.commit": "0" * 40}, "lacks the commit"),
        ({"git.commit": "none"}, "outside a git repository"),
        ({"git.dirty": "true"}, "uncommitted changes"),
    ],
)
def test_code_without_a_clean_commit_counts_as_lost(written: dict[str, str], why: str, folder: Path) -> None:
    code, places, said = walked(register(**written))
    assert (code, why in places["code"], "code cannot be fetched" in said) == (1, True, True)


def test_a_deleted_run_counts_as_lost(folder: Path) -> None:
    client: MlflowClient = connect()
    client.delete_run(client.get_model_version("lectern", "1").run_id)
    code, places, said = walked("1")
    assert (code, "deleted" in places["run"], "run cannot be fetched" in said) == (1, True, True)


def test_examples_without_a_tag_are_found_through_dvc_lock_of_the_commit(folder: Path) -> None:
    older = {**tags(), "data.examples.md5": "missing"}
    assert walked(register(**older))[1]["examples"] == "DVC's cache"


def test_a_remote_that_does_not_answer_is_a_temporary_failure(folder: Path) -> None:
    dvc("remote", "add", "--default", "away", "ssh://127.0.0.1:9/none")
    assert walked("1")[0] == 0  # the cache has it all
    forget(tags()["data.workbook.md5"])
    code, _, said = walked("1")
    assert (code, "remote failed" in said) == (75, True)


def test_a_missing_version_is_a_usage_error(folder: Path) -> None:
    assert walked("9")[0] == 2
    assert lectern_here("lineage").returncode == 1  # neither champion nor challenger
