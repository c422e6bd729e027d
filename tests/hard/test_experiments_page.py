"""Every command of docs/experiments.md, typed one after the other in a small project."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import ROOT
from tests.whole_project import environment, make_project, run

PAGE = ROOT / "docs" / "experiments.md"

pytestmark = pytest.mark.hard


def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    make_project(tmp_path, ["bart-tiny"])
    run(tmp_path, "git", "config", "user.name", "t")
    run(tmp_path, "git", "config", "user.email", "t@example.org")
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    said, wide = {}, environment(COLUMNS="400")  # or DVC shortens the names in its table
    for command in [line for block in blocks for line in block.splitlines()]:
        done = subprocess.run(shlex.split(command), cwd=tmp_path, env=wide, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[command] = done.stdout
    shown = next(text for command, text in said.items() if command.startswith("dvc exp show"))
    for name in ("short-texts", "high-rate", "one-epoch", "three-epochs"):
        assert name in shown
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'lectern'")
    runs = client.search_runs([experiment.experiment_id])
    assert {r.data.tags.get("dvc.experiment") for r in runs} >= {"short-texts", "high-rate", "three-epochs"}
    version = client.get_model_version_by_alias("lectern", "challenger")
    assert client.get_run(version.run_id).data.tags["dvc.experiment"] == "three-epochs"
    assert len(client.search_model_versions("name = 'lectern'")) == 1
