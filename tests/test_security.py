"""Data, checkpoints and names from outside cannot run code or leave their folder, and passwords are never shown."""

from __future__ import annotations

import ast
import csv
import json
import subprocess
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
import yaml

from flows.cluster.worker import Source, tracking_from_here
from flows.graph.workbook import bring_in
from pipeline.data.broken_rows import no_rows_aside
from pipeline.errors import Rejected, UsageError
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.paths import BROKEN_ROWS, LINES, SET_ASIDE, TOPICS
from pipeline.redaction import hide_passwords, without_user
from pipeline.registry.register_settings import RegisterSettings
from pipeline.settings import read_params
from pipeline.stages import merge
from tests.command import lectern
from tests.conftest import ROOT
from tests.models.small import small_model
from tests.titles.small import register, write_book

CODE = sorted(path for room in ("lectern", "pipeline", "flows", "benchmarks") for path in (ROOT / room).rglob("*.py"))
UNPICKLERS = {"pickle", "joblib", "cloudpickle", "dill", "marshal", "shelve"}
CALLS = {"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "eval", "exec"}
SWITCHES = {"allow_pickle": True, "trust_remote_code": True, "shell": True, "verify": False, "weights_only": False}
PLANTED = "pLanTed-s3cret"
FORMULA = "=cmd|' /C calc'!A0"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_unpickles_or_passes_text_to_a_shell(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                found += [alias.name for alias in node.names if alias.name.partition(".")[0] in UNPICKLERS]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in UNPICKLERS:
                found += [alias.name for alias in node.names if alias.name != "UnpicklingError"]
            case ast.Call():
                found += [called] if (called := ast.unparse(node.func)) in CALLS else []
                found += [
                    each.arg
                    for each in node.keywords
                    if each.arg in SWITCHES and ast.unparse(each.value) == str(SWITCHES[each.arg])
                ]
    return found


@pytest.mark.parametrize(
    "name", ["$(touch sprung)", "`touch sprung`", "a; touch sprung", "../../away", "-rf", "a b", ""]
)
@pytest.mark.parametrize("section", ["models", "contestants"])
def test_a_model_cannot_be_named_as_a_command_or_a_path(section: str, name: str, project: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params[section] = {**params[section], name: {}} if section == "models" else [name]
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    with pytest.raises(UsageError, match=f"params.yaml, {section}: a model cannot be named"):
        read_params()


@pytest.mark.parametrize("stage", ["train", "predict", "score"])
def test_the_command_of_a_stage_quotes_the_name_of_a_model(stage: str, tmp_path: Path) -> None:
    command = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["do"]["cmd"]
    name = "$(touch sprung); touch sprung `touch sprung`"
    said = subprocess.check_output(
        command.replace("python -m pipeline", "echo").replace("${item}", name), shell=True, cwd=tmp_path, text=True
    )
    assert said == f"{stage} {name}\n"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["..", "../away", "/tmp/away", "$(touch x)"])
def test_a_registered_model_cannot_be_named_as_a_path(name: str, project: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    Path("params.yaml").write_text(yaml.safe_dump({**params, "register": {"name": name}}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"register\.name"):
        RegisterSettings.read()


@pytest.mark.parametrize("kind", ["model", "tokenizer"])
def test_a_checkpoint_with_code_of_its_own_is_rejected_and_does_not_run(
    kind: str, examples: pd.DataFrame, tmp_path: Path
) -> None:
    model, inputs = small_model("bart", examples)
    for part in (model, inputs.tokenizer):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "homemade.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')", encoding="utf-8")
    path = tmp_path / "model" / {"model": "config.json", "tokenizer": "tokenizer_config.json"}[kind]
    foreign = {
        "model": {"model_type": "homemade", "auto_map": {"AutoModel": "homemade.Model"}},
        "tokenizer": {"tokenizer_class": "Homemade", "auto_map": {"AutoTokenizer": ["homemade.T", "homemade.T"]}},
    }
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | foreign[kind]), encoding="utf-8")
    with pytest.raises(Rejected, match=f"(?i)is a 'homemade' {kind}: .* needs its own Python code"):
        find_checkpoint(str(tmp_path / "model"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://lectern:a/b@c@db.example/mlflow", "postgresql://lectern:***@db.example/mlflow"),
        ("https://x-access-token:abc@git.example/o/r", "https://x-access-token:***@git.example/o/r"),
        ("https://ghp_0123456789abcdefghij0123456789@git.example/o/r", "https://***@git.example/o/r"),
        ("s3://bucket/path?password=abc&x=1", "s3://bucket/path?password=***&x=1"),
        ("https://example/b.xlsx?code=abc&x=1", "https://example/b.xlsx?code=***&x=1"),
        ("https://example/b.xlsx?x=1;authkey=abc", "https://example/b.xlsx?x=1;authkey=***"),
        ("https://example/b.xlsx;key=a;b?x=1&auth=abc", "https://example/b.xlsx;key=***&auth=***"),
        ("https://example/b.xlsx#access_token=abc", "https://example/b.xlsx#access_token=***"),
        ("https://example/b.xlsx?keyboard=abc#author=b", "https://example/b.xlsx?keyboard=abc#author=b"),
        (f"Authorization: Bearer {PLANTED}", "Authorization: Bearer ***"),
        ("http://127.0.0.1:5000/#/models/lectern@champion", "http://127.0.0.1:5000/#/models/lectern@champion"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    assert hide_passwords(text) == shown


@pytest.mark.parametrize("command", ["lineage", pytest.param("clean", marks=pytest.mark.hard)])
def test_a_command_hides_the_password_of_the_tracking_server(
    command: str, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://lectern:{PLANTED}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # three retries take 14 s
    for words in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=project, check=True)
    done = lectern(command, cwd=project)
    assert done.returncode != 0
    said = done.stdout + done.stderr + "".join(capfd.readouterr())
    assert "127.0.0.1:9" in said
    assert PLANTED not in said


@pytest.mark.parametrize(
    ("own", "used"),
    [
        (f"http://lectern:{PLANTED}@mlflow.example:5000", f"http://lectern:{PLANTED}@mlflow.example:5000"),
        ("sqlite:///mlflow.db", "http://mlflow.example:5000"),
        (f"http://lectern:{PLANTED}@elsewhere.example:5000", "http://mlflow.example:5000"),
    ],
)
def test_a_machine_of_a_cluster_uses_its_own_password(own: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(f"https://x:{PLANTED}@git.example/r", "c", without_user(f"http://a:{PLANTED}@mlflow.example:5000"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own)
    assert tracking_from_here(source) == used
    assert PLANTED not in repr(source)


def test_a_password_in_the_address_of_a_workbook_is_refused(project: Path) -> None:
    with pytest.raises(UsageError, match="holds a password"):
        bring_in(f"https://lectern:{PLANTED}@127.0.0.1:9/lessons.xlsx")
    assert not (project / "data").exists()


def test_set_aside_rows_are_text_in_a_spreadsheet(project: Path) -> None:
    for path in (TOPICS, LINES):
        path.parent.mkdir(parents=True, exist_ok=True)
    row = {"course_title": "+1", "lesson_num": "@1", "row": 2}
    pd.DataFrame([{**row, "start_seconds": 9.0, "title": FORMULA}]).to_parquet(TOPICS)
    pd.DataFrame([{**row, "seconds": 1.0, "text": "-2+3"}]).to_parquet(LINES)
    no_rows_aside().to_parquet(BROKEN_ROWS)
    merge.run()
    with SET_ASIDE.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert {"'+1", "'@1", f"'{FORMULA}", "'-2+3"} <= {*cells}
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_a_title_like_a_formula_stays_text_in_the_titled_workbook(
    project: Path, examples: pd.DataFrame, tmp_path: Path
) -> None:
    register(project / "models/small", examples)
    words = "we talk about gradients and why gradients matter"
    book = write_book(
        tmp_path / "lessons.xlsx",
        [(FORMULA, 1, "0:00:00", FORMULA), (FORMULA, 1, "0:01:00", None)],
        [(FORMULA, 1, "0:00:01", FORMULA), (FORMULA, 1, "0:01:01", words)],
    )
    done = lectern("title", book, "--out", tmp_path / "titled.xlsx", cwd=project)
    assert done.returncode == 0, done.stderr
    for sheet in openpyxl.load_workbook(tmp_path / "titled.xlsx"):
        assert "f" not in {cell.data_type for row in sheet.iter_rows() for cell in row}
    assert openpyxl.load_workbook(tmp_path / "titled.xlsx")["lesson_topics"]["D2"].value == FORMULA
