"""From a version back to its workbook: what each thing was made of, and where that can still be had."""

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
from pipeline.paths import EXAMPLES, MODELS, SPLITS
from pipeline.registry.lineage import git, md5
from pipeline.registry.model_card import README
from pipeline.registry.tracking import find_run

_HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")
_LOCK = "dvc.lock"
_GENERATION = "generation_config.json"

Kept = Callable[[str], list[str]]
"""Names the places that keep the file or folder of a hash."""


@dataclass(frozen=True)
class Step:
    """One thing on the way. `why`: it cannot be had, where `places` names none that has it."""

    what: str
    which: str
    places: list[str]
    why: str = ""


def walk(client: MlflowClient, version: ModelVersion, kept: Kept) -> Iterator[Step]:
    """Each step, from the version to its workbook.

    Args:
        kept: by DVC. The work tree and MLflow are looked at here.
    """
    tags = version.tags
    yield Step("version", f"{version.name}/{version.version}", ["MLflow"])
    yield _run(client, version)
    yield _model(version, kept)
    yield _code(tags)
    if "checkpoint" in tags:
        yield _checkpoint(tags["checkpoint"], tags["checkpoint.md5"])
    for split in ("train", "validation", "test"):
        yield _file(f"{split} split", tags.get(f"data.{split}.md5"), SPLITS / f"{split}.parquet", kept)
    yield _file("examples", _examples(tags), EXAMPLES, kept)
    yield _file("workbook", tags.get("data.workbook.md5"), Path(tags.get("data.workbook", "")), kept)


def _run(client: MlflowClient, version: ModelVersion) -> Step:
    if not version.run_id:
        return Step("run", "-", [], "the version names none")
    places = ["MLflow"] if find_run(client, version.run_id) else []
    return Step("run", version.run_id, places, "MLflow does not know it, or it was deleted")


def _model(version: ModelVersion, kept: Kept) -> Step:
    model, digest = version.tags.get("model", "-"), version.tags.get("model.md5")
    found = _file("model", digest, MODELS / model, kept)
    if digest and digest in _registered_md5(version, model):
        return Step(found.what, found.which, ["MLflow", *found.places])
    return found


def _registered_md5(version: ModelVersion, model: str) -> set[str]:
    """The hashes that the model's folder may have had before it was registered; fetches all of it.

    Registering adds the card and generation_config.json. Older versions had a generation_config.json from their
    training, so the hash with that file counts too.
    """
    uri = f"models:/{version.name}/{version.version}/artifacts/{model}"
    with TemporaryDirectory(prefix="lectern-") as scratch:
        try:
            folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=scratch))
        except (MlflowException, OSError) as error:  # of a store that is gone, or that never was one
            if lacking := machine_errors.in_our_words(error):
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
        return Step("code", "-", [], "it was trained outside of git")
    if git("cat-file", "-t", commit) != "commit":
        return Step("code", commit, [], "this repository has no such commit; fetch it from where it was trained")
    if tags.get("git.dirty") == "true":
        return Step("code", commit, [], "the work tree had changes that no commit holds")
    return Step("code", commit, ["git"])


def _checkpoint(place: str, digest: str) -> Step:
    try:
        here = [place] if md5(find_checkpoint(place)) == digest else []
    except (Rejected, TemporaryFailure):
        here = []
    return Step("checkpoint", digest, here, f"{place} is not there, or holds other weights now")


def _file(what: str, digest: str | None, path: Path, kept: Kept) -> Step:
    """A file or folder that DVC keeps, and that lies in the work tree as long as nothing newer is made."""
    if digest is None or not _HASH.fullmatch(digest):
        return Step(what, "-", [], "nobody wrote down its hash")
    here = ["work tree"] if path.exists() and md5(path) == digest else []
    return Step(what, digest, [*here, *kept(digest)], "neither DVC's cache nor its remote nor the work tree has it")


def _examples(tags: Mapping[str, str]) -> str | None:
    """The hash of the examples: from the tags, else from a dvc.lock whose split is the version's."""
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
    """A row a step: what it is, which one, and where it can be had."""
    table = Table(title="From the version to its workbook", title_justify="left")
    for column in ("what", "which", "can be had from"):
        table.add_column(column)
    for step in steps:
        where = Text(", ".join(step.places)) if step.places else Text(f"nowhere: {step.why}", style="red")
        table.add_row(step.what, Text(step.which), where)
    return table
