"""Record what a model is made from: commit, data, checkpoint, code and libraries."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments import experiment
from pipeline.paths import EXAMPLES, SPLITS, TRAINING_SPLITS
from pipeline.settings import read_params

if TYPE_CHECKING:
    from pipeline.models.checkpoints import ModelSettings

_LIBRARIES = ("torch", "transformers", "tokenizers", "mlflow", "pandas", "evaluate", "bert-score")
_CHUNK_BYTES = 1 << 20


def lineage_tags() -> dict[str, str]:
    """Return the tags of a training run: commit, DVC stage, hashes of its inputs, library versions, flow run if any."""
    workbook = Path(read_params()["ingest"]["workbook"])
    tags = {
        "git.commit": git("rev-parse", "HEAD") or "none",
        # Without dvc.lock, which DVC rewrites while the stages run.
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


def checkpoint_tags(model: ModelSettings) -> dict[str, str]:
    """Return the address and the hash of the weights that a training starts from; nothing for random weights."""
    if model.scratch:
        return {}
    from pipeline.models.checkpoint_sources import find_checkpoint  # imports the client of the model hub

    return {"checkpoint": model.checkpoint, "checkpoint.md5": md5(find_checkpoint(model.checkpoint))}


def training_fingerprint(model: ModelSettings, settings: Mapping[str, Any], start: Mapping[str, str]) -> str:
    """Return twelve hex digits that change with the model, its settings, weights, splits, code or libraries.

    Args:
        start: the result of `checkpoint_tags` for `model`.
    """
    inputs = [
        model.model_dump_json(exclude={"train"}),
        json.dumps(settings, sort_keys=True),
        start.get("checkpoint.md5", "scratch"),
        *map(md5, (*TRAINING_SPLITS.values(), Path("pipeline/models"), Path("pipeline/training"))),
        version("torch"),
        version("transformers"),
    ]
    return hashlib.sha256(" ".join(inputs).encode()).hexdigest()[:12]


def is_of_current_split(tags: Mapping[str, str]) -> bool:
    """Return whether the version with these tags was trained on the current training split."""
    return tags.get("data.train.md5") == md5(TRAINING_SPLITS["train"])


def md5(path: Path) -> str:
    """Return the hash of a file or folder as DVC 3 computes it for `dvc.lock`; "missing" if the path does not exist.

    The hash of a folder is the hash of the JSON list of its files' hashes and relative paths, and ends in `.dir`.
    """
    if path.is_file():
        return _md5_of_file(path)
    if not path.exists():
        return "missing"
    files = sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix())
    listing = [
        {"md5": _md5_of_file(file), "relpath": file.relative_to(path).as_posix()}
        for file in files
        if file.is_file() and "__pycache__" not in file.parts  # .dvcignore leaves it out too
    ]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def title_code_hashes(package: Path) -> list[str]:
    """Return the hashes of the code that titles depend on, in a copy of the package `pipeline`."""
    return [md5(package / part) for part in ("models", "data/lesson_openings.py")]


def _md5_of_file(path: Path) -> str:
    digest = hashlib.md5()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def git(*words: str) -> str:
    """Return the output of a git command; an empty text without git or outside a repository."""
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
