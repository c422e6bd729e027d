"""Where a model comes from: what lets one walk back from a version to commit, split and workbook."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from pipeline.experiments import experiment
from pipeline.paths import EXAMPLES, SPLITS, TRAINING_SPLITS
from pipeline.settings import read_params

_LIBRARIES = ("torch", "transformers", "tokenizers", "mlflow", "pandas", "evaluate", "bert-score")
_CHUNK_BYTES = 1 << 20


def lineage_tags() -> dict[str, str]:
    """Tags of a training run: commit, DVC stage, hashes of what it reads, library versions, and the flow run if any."""
    workbook = Path(read_params()["ingest"]["workbook"])
    tags = {
        "git.commit": git("rev-parse", "HEAD") or "none",
        # DVC rewrites dvc.lock while the stages run, so a change there does not make the tree dirty.
        "git.dirty": str(bool(git("status", "--porcelain", "--", ".", ":!dvc.lock"))).lower(),
        "dvc.stage": os.environ.get("DVC_STAGE", "none: run by hand"),
        "data.workbook": str(workbook),
        "data.workbook.md5": md5(workbook),
        "data.examples.md5": md5(EXAMPLES),
        **{f"data.{split}.md5": md5(SPLITS / f"{split}.parquet") for split in ("train", "validation", "test")},
        **{f"library.{name}": version(name) for name in _LIBRARIES},
    }
    if name := experiment():
        tags["dvc.experiment"] = name
    if flow_run := os.environ.get("LECTERN_FLOW_RUN_ID"):
        tags |= {"prefect.flow_run_id": flow_run, "prefect.flow_run_url": os.environ.get("LECTERN_FLOW_RUN_URL", "")}
    return tags


def of_todays_split(tags: Mapping[str, str]) -> bool:
    """Whether the version that carries `tags` was trained on the training split that lies here now."""
    return tags.get("data.train.md5") == md5(TRAINING_SPLITS["train"])


def md5(path: Path) -> str:
    """The hash under which DVC keeps `path`, file or folder: what `dvc.lock` says of an output that nobody has touched.

    A folder's is the hash of the JSON list of its files' hashes and relative paths, as DVC 3 defines it, and ends in
    `.dir`.
    """
    if path.is_file():
        return _md5_of_file(path)
    if not path.exists():
        return "missing"
    files = sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix())
    listing = [
        {"md5": _md5_of_file(file), "relpath": file.relative_to(path).as_posix()}
        for file in files
        if file.is_file() and "__pycache__" not in file.parts  # nor does DVC look at it: .dvcignore
    ]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def code_that_writes_titles(package: Path) -> list[str]:
    """Hashes of what of `package`, a folder with our code, titles depend on beside the weights."""
    return [md5(package / part) for part in ("models", "data/lesson_openings.py")]


def _md5_of_file(path: Path) -> str:
    digest = hashlib.md5()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def git(*words: str) -> str:
    """What git answers; empty where there is no git, or no repository."""
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
