"""A version runs in an environment with its own requirements only."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import mlflow
import pytest
from packaging.requirements import Requirement

from tests.registry.small import NAME

TITLE = """
import json, sys
sys.path = json.loads(sys.argv[1])
import mlflow
print(mlflow.pyfunc.load_model(sys.argv[2]).predict(["the gradient says where to go"])["title"][0])
"""


def required(names: list[str]) -> set[str]:
    """Return these distributions and their requirements, without extras, as far as they are installed."""
    found: set[str] = set()
    while names:
        wanted = Requirement(names.pop())
        if wanted.name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        try:
            names += distribution(wanted.name).requires or ()
        except PackageNotFoundError:
            continue
        found.add(wanted.name)
    return found


def install(names: set[str], folder: Path) -> None:
    """Make an environment with these distributions, by links."""
    for name in names:
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(installed.locate_file(top)).resolve())


@pytest.mark.usefixtures("three_versions")
@pytest.mark.slow
def test_a_version_runs_with_its_requirements_only(tmp_path: Path) -> None:
    uri = f"models:/{NAME}/1"
    lines = Path(mlflow.artifacts.download_artifacts(f"{uri}/requirements.txt")).read_text(encoding="utf-8")
    environment = tmp_path / "environment"
    environment.mkdir()
    install(required(lines.split()), environment)
    paths = [str(environment), *(path for path in sys.path if path.startswith(sys.base_prefix))]
    version = mlflow.artifacts.download_artifacts(uri)
    words = [sys.executable, "-I", "-S", "-c", TITLE, json.dumps(paths), version]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
