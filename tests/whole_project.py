"""A project like a user's, with the shipped code and graph, on a small sample and with models that train in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.conftest import ROOT
from tests.forking import quick_python

SHIPPED = [
    "lectern", "pipeline", "flows", "expectations", "params.yaml", "catalogue.yaml", "dvc.yaml", "requirements.lock",
    "prefect.toml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore",
]  # fmt: skip


def environment(**variables: str) -> dict[str, str]:
    """As in a new shell with the virtual environment active."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **variables}


def run(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def dvc(folder: Path, *words: str, check: bool = True) -> str:
    """What `dvc` prints. It and its stages start within a moment."""
    return run(folder, str(quick_python()), "-m", "dvc", *words, check=check).stdout


def make_project(folder: Path, contestants: Sequence[str]) -> None:
    """Fills `folder`, and commits it to a Git repository of its own. Nothing has run in it."""
    for name in SHIPPED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["contestants"] = [*contestants]
    params["sample"]["topics"] = 48
    params["split"] |= {"validation": 0.3, "test": 0.3}
    params["generate"]["default"] |= {"num_beams": 2, "max_new_tokens": 8}
    for name in contestants:
        params["models"][name] = {
            "family": name.removesuffix("-tiny"),
            "checkpoint": "scratch",
            "max_target_tokens": 24,
            "scratch": {"width": 32, "layers": 1, "heads": 2, "vocabulary": 600},
            "max_source_tokens": 64,
            "train": {"epochs": 1},
        }
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", ".")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "start")
