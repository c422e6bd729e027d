"""Trace a version back to its workbook, and find where each thing that it was made from can still be fetched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from rich.table import Table
from rich.text import Text

from pipeline import machine_errors
from pipeline.errors import Rejected, TemporaryFailure
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.paths import EXAMPLES, MODELS, SEGMENTER, SPLITS
from pipeline.registry.lineage import git, md5
from pipeline.registry.model_card import README
from pipeline.registry.tracking import find_run

_HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")
_LOCK = "dvc.lock"
_GENERATION = "generation_config.json"

FindKept = Callable[[str], list[str]]
"""Finds the places where DVC keeps the file or folder with a hash."""


@dataclass(frozen=True)
class Step:
    """One thing that a version was made from."""

    what: str
    which: str  # its name, its commit or its hash
    places: list[str]  # where it can be fetched
    why: str = ""  # the reason if `places` is empty


def walk(client: MlflowClient, version: ModelVersion, find_kept: FindKept) -> Iterator[Step]:
    """Return the steps from the version to its workbook.

    Args:
        find_kept: searches DVC's cache and remote. This function itself searches the work tree and MLflow.
    """
    tags = version.tags
    yield Step("version", f"{version.name}/{version.version}", ["MLflow"])
    yield _run(client, version)
    yield _model(version, find_kept)
    if "segmenter.md5" in tags:
        yield _file("segmenter", tags["segmenter.md5"], SEGMENTER, find_kept)
    yield _code(tags)
    if "checkpoint" in tags:
        yield _checkpoint(tags["checkpoint"], tags["checkpoint.md5"])
    for split in ("train", "validation", "test"):
        yield _file(f"{split} split", tags.get(f"data.{split}.md5"), SPLITS / f"{split}.parquet", find_kept)
    yield _file("examples", _examples(tags), EXAMPLES, find_kept)
    yield _file("workbook", tags.get("data.workbook.md5"), Path(tags.get("data.workbook", "")), find_kept)


def _run(client: MlflowClient, version: ModelVersion) -> Step:
    if not version.run_id:
        return Step("run", "-", [], "the version has none")
    places = ["MLflow"] if find_run(client, version.run_id) else []
    return Step("run", version.run_id, places, "MLflow does not know it, or it was deleted")


def _model(version: ModelVersion, find_kept: FindKept) -> Step:
    model, digest = version.tags.get("model", "-"), version.tags.get("model.md5")
    found = _file("model", digest, MODELS / model, find_kept)
    if digest and digest in _registered_md5(version, model):
        return Step(found.what, found.which, ["MLflow", *found.places])
    return found


def _registered_md5(version: ModelVersion, model: str) -> set[str]:
    """Fetch the version's model folder and return the hashes that it may have had before it was registered.

    Registering adds the card and generation_config.json. Some folders had a generation_config.json from their training,
    so the hash with that file counts too.
    """
    uri = f"models:/{version.name}/{version.version}/artifacts/{model}"
    with TemporaryDirectory(prefix="lectern-") as scratch:
        try:
            folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=scratch))
        except (MlflowException, OSError) as error:  # the store was deleted, or is not a store
            if lacking := machine_errors.translate_error(error):
                raise lacking from error
            return set()
        for name in README:
            (folder / name).unlink(missing_ok=True)
        with_settings = md5(folder)
        (folder / _GENERATION).unlink(missing_ok=True)
        return {with_settings, md5(folder)}


def _code(tags: Mapping[str, str]) -> Step:
    commit = tags.get("git.commit", "none")
    if commit == "none":
        return Step("code", "-", [], "it was trained outside a git repository")
    if git("cat-file", "-t", commit) != "commit":
        return Step("code", commit, [], "this repository lacks the commit; fetch it from where it was trained")
    if tags.get("git.dirty") == "true":
        return Step("code", commit, [], "the work tree had uncommitted changes")
    return Step("code", commit, ["git"])


def _checkpoint(place: str, digest: str) -> Step:
    try:
        here = [place] if md5(find_checkpoint(place)) == digest else []
    except (Rejected, TemporaryFailure):
        here = []
    return Step("checkpoint", digest, here, f"{place} is missing or now has other weights")


def _file(what: str, digest: str | None, path: Path, find_kept: FindKept) -> Step:
    """Return the step of a file or folder. DVC keeps it; the work tree may have a newer one at `path`."""
    if digest is None or not _HASH.fullmatch(digest):
        return Step(what, "-", [], "its hash was not recorded")
    here = ["work tree"] if path.exists() and md5(path) == digest else []
    return Step(what, digest, [*here, *find_kept(digest)], "it is missing in DVC's cache, its remote and the work tree")


def _examples(tags: Mapping[str, str]) -> str | None:
    """Return the hash of the examples from the tags, or else from a dvc.lock with the split of the version."""
    if _HASH.fullmatch(tags.get("data.examples.md5", "")):
        return tags["data.examples.md5"]
    here = Path(_LOCK).read_text(encoding="utf-8") if Path(_LOCK).exists() else ""
    for lock in (here, git("show", f"{tags.get('git.commit', 'none')}:./{_LOCK}")):
        stage = ((yaml.safe_load(lock) or {}).get("stages") or {}).get("split", {})
        if _hashes(stage, "outs").get(f"{SPLITS}/train.parquet") == tags.get("data.train.md5", "unknown"):
            return _hashes(stage, "deps").get(EXAMPLES.as_posix())
    return None


def _hashes(stage: Mapping[str, Any], side: str) -> dict[str, str]:
    return {entry["path"]: entry.get("md5", "") for entry in stage.get(side, [])}


def walk_table(steps: list[Step]) -> Table:
    """Format the steps for a terminal."""
    table = Table(title="From the version to its workbook", title_justify="left")
    for column in ("what", "which", "available from"):
        table.add_column(column)
    for step in steps:
        where = Text(", ".join(step.places)) if step.places else Text(f"nowhere: {step.why}", style="red")
        table.add_row(step.what, Text(step.which), where)
    return table
