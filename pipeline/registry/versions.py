"""The registered model: its versions, and the two aliases that say which one counts.

`challenger` is the newest version; `champion` is the one a person promoted. An alias keeps no history, so every move of
`champion` is written down as a tag of the registered model, and a rollback replays those.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar

import mlflow
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models.model import ModelInfo
from mlflow.utils import get_results_from_paginated_fn
from pydantic import Field

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.experiments import main_project
from pipeline.files import make_folder
from pipeline.paths import REGISTRY_LOCK, STATE
from pipeline.registry.artifact_store import sync_artifacts
from pipeline.registry.serving_trial import try_version
from pipeline.registry.tracking import EXPERIMENT, find_run
from pipeline.registry.unfinished_runs import written_run
from pipeline.settings import Section

if TYPE_CHECKING:
    from pipeline.models.generation import GenerateSettings
    from pipeline.registry.gate import Verdict

CHAMPION = "champion"
CHALLENGER = "challenger"
NO_REASON = "no reason given"
TRIAL_TEXT = "so in this part we look at how a learning rate that is too high makes the loss go up instead of down"
_REQUIREMENTS = (
    "mlflow",
    "torch",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "accelerate",
    "huggingface-hub",
    "httpx2",
    "filelock",
    "numpy",
    "pandas",
    "pydantic",
    "pyyaml",
    "tqdm",
    "yake",
)
_TRAIL = "trail."
_EVIDENCE = {"promote": "promotions", "rollback": "rollbacks"}  # folders of the artifacts of a version's run
_GENERATE = "model.generate"
_IDENTITY = ("model.md5", "model.code", _GENERATE)

_log = logging.getLogger(__name__)


class RegisterSettings(Section):
    section: ClassVar[str] = "register"

    name: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9_. -]*$")  # of the registered model, and a folder of its exports


@dataclass(frozen=True)
class Registered:
    """What the register stage did: reports/registered.json."""

    name: str
    version: int
    model: str
    model_md5: str
    run_id: str


@dataclass(frozen=True)
class Move:
    """One move of the champion alias."""

    action: str  # promote | rollback
    version: str  # that is champion after it
    before: str | None  # that was champion before it
    who: str
    when: str  # UTC
    because: str
    evidence: str | None = None  # the move, with the verdict if there is one, among the artifacts of the version's run
    forced: bool = False  # against the verdict


Judge = Callable[[ModelVersion, ModelVersion | None], "Verdict"]
"""What a gate makes of a version and of the champion."""


def register(
    client: MlflowClient,
    name: str,
    folder: Path,
    settings: GenerateSettings,
    *,
    run_id: str,
    tags: dict[str, str],
) -> ModelVersion:
    """Makes the model in `folder` a version with the alias `challenger`; the version it already is, if it is one.

    Args:
        settings: how it writes titles unless a caller says otherwise.
        run_id: the run of its training, which the version then belongs to; a run of its own where that is unknown here.
        tags: what the version carries; one that exists gets today's. `_IDENTITY` says which work it is.
    """
    tags = {**tags, _GENERATE: settings.model_dump_json()}
    with _registry_lock():
        version = _version_of(client, name, tags)
        if version is None:
            version = _log_version(client, name, folder, settings, run_id, tags)
        else:
            for key, value in tags.items():
                client.set_model_version_tag(name, version.version, key, value)
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def versions(client: MlflowClient, name: str) -> list[tuple[ModelVersion, list[str]]]:
    """Every version with its aliases, the newest first; none where nothing is registered."""
    registered = _registered(client, name)
    if registered is None:
        return []
    aliases = registered.aliases
    found = get_results_from_paginated_fn(
        lambda most, token: client.search_model_versions(f"name = '{name}'", max_results=most, page_token=token),
        max_results_per_page=1000,
    )
    numbered = sorted(found, key=lambda version: int(version.version), reverse=True)
    return [
        (version, [alias for alias, n in aliases.items() if int(n) == int(version.version)]) for version in numbered
    ]


def nothing_registered(name: str) -> str:
    """What to do about it."""
    return (
        f"No version of '{name}' is registered at {mlflow.get_tracking_uri()}. Run `lectern run`; if it finds nothing "
        "to do, because the models were registered elsewhere, `lectern register`."
    )


def version_to_use(client: MlflowClient, name: str) -> ModelVersion:
    """The champion, else the challenger.

    Raises:
        Rejected: there is neither.
    """
    version = _by_alias(client, name, CHAMPION) or _by_alias(client, name, CHALLENGER)
    if version is None:
        raise Rejected(nothing_registered(name))
    return version


def named_version(client: MlflowClient, name: str, number: int | None) -> ModelVersion:
    """The version of that number; the champion, else the challenger, where it is None.

    Raises:
        UsageError: there is no such version.
        Rejected: there is neither.
    """
    if number is None:
        return version_to_use(client, name)
    version = _by_number(client, name, str(number))
    if version is None:
        raise UsageError(f"There is no version {number} of '{name}'. `lectern models` lists them.")
    return version


def logged_models(version: ModelVersion) -> list[str]:
    """The ids of the logged models that hold what the version serves.

    One of a version that was registered by an address such as models:/m-1f… or …/models/m-1f…/artifacts.
    """
    return [*filter(None, [version.model_id]), *re.findall(r"\bm-[0-9a-f]{32}\b", version.source or "")]


def settings_of(version: ModelVersion) -> GenerateSettings:
    """How `version` writes titles unless a caller says otherwise."""
    from pipeline.models.generation import GenerateSettings

    return GenerateSettings.model_validate_json(version.tags[_GENERATE])


def promote(
    client: MlflowClient,
    name: str,
    number: str | None,
    *,
    because: str,
    judge: Judge,
    force: bool = False,
    who: str | None = None,
) -> tuple[Move, Verdict]:
    """Makes a version the champion, if `judge` lets it pass.

    Args:
        number: the version; the challenger where it is None.
        force: whatever the verdict is; the trail keeps that.
        who: promotes it; the user of this process where it is None.

    Raises:
        UsageError: there is no such version.
        Rejected: it does not load, or does not pass; or it already is the champion.
        TemporaryFailure: a version could not be tried now; or elsewhere, another one has become the champion meanwhile.
    """
    # Held while it is judged: of two promotions at once, the second is compared with what the first has made champion.
    with _registry_lock():
        version, before = version_and_champion(client, name, number)
        verdict = judge(version, before)
        if not verdict.passed and not force:
            raise NotPassed(name, verdict)
        _refuse_changed(client, name, before)
        return _move(client, name, "promote", version, before, because, verdict, who=who), verdict


def promotion_made(client: MlflowClient, name: str, number: str | None, because: str, who: str | None) -> Move | None:
    """The last move, if it is the promotion that `promote` would be asked for so, and the champion's own.

    For who asked once, and was not told how it ended. What may have been cut off, the tag of the version, is written.
    """
    present, moves = _by_alias(client, name, CHAMPION), trail(client, name)
    if present is None or not moves or (moves[-1].action, moves[-1].version) != ("promote", str(present.version)):
        return None
    move = moves[-1]
    if number not in (None, move.version) or (move.because, move.who) != _given(because, who):
        return None
    _keep_with_version(client, name, move)
    return move


class NotPassed(Rejected):
    """The gate does not let the version pass; nothing has moved."""

    def __init__(self, name: str, verdict: Verdict) -> None:
        super().__init__(f"Version {verdict.version} of '{name}' was not promoted:\n{verdict.in_words()}")
        self.verdict = verdict


def version_and_champion(
    client: MlflowClient, name: str, number: str | None
) -> tuple[ModelVersion, ModelVersion | None]:
    """The version, the challenger where `number` is None, and the champion if there is one.

    Raises:
        UsageError: there is no such version.
        Rejected: it already is the champion.
    """
    version = _by_alias(client, name, CHALLENGER) if number is None else _by_number(client, name, number)
    if version is None:
        raise UsageError(
            f"There is no version {number or 'with the alias challenger'} of '{name}'. `lectern models` lists them."
        )
    champion = _by_alias(client, name, CHAMPION)
    if champion is not None and champion.version == version.version:
        raise Rejected(f"Version {version.version} of '{name}' already is the champion.")
    return version, champion


def _refuse_changed(client: MlflowClient, name: str, before: ModelVersion | None) -> None:
    """Raises:
    TemporaryFailure: the champion is another one than `before`. Only the moves of this folder wait for one another.
    """
    present = _by_alias(client, name, CHAMPION)
    if (present.version if present else None) != (before.version if before else None):
        raise TemporaryFailure(
            f"While a version was tried, the champion of '{name}' has changed: "
            f"{f'it is version {present.version} now' if present else 'there is none now'}. "
            "Give the command again, if it is still wanted."
        )


def rollback(client: MlflowClient, name: str, *, because: str) -> Move:
    """Makes the champion before this one the champion again, once it has loaded and written a title.

    Raises:
        Rejected: there is no champion, or none before it, or that one is gone or does not load.
        TemporaryFailure: that one could not be tried now; or elsewhere, another one has become the champion meanwhile.
    """
    with _registry_lock():
        present = _by_alias(client, name, CHAMPION)
        line = champions(_moves_made(trail(client, name), present))
        if present is not None and line[-1:] != [str(present.version)]:
            line.append(str(present.version))  # somebody moved the alias elsewhere, in MLflow's pages say
        if len(line) < 2:
            raise Rejected(f"'{name}' has no champion to go back to. `lectern models` shows what there is.")
        before = _by_number(client, name, line[-2])
        if before is None:
            raise Rejected(f"Version {line[-2]} of '{name}', the champion before, is gone. Promote another one.")
        _try(name, before)
        _refuse_changed(client, name, present)
        return _move(client, name, "rollback", before, present, because)


def trail(client: MlflowClient, name: str) -> list[Move]:
    """Every move of the champion alias, the oldest first."""
    registered = _registered(client, name)
    tags = registered.tags if registered else {}
    return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_TRAIL)]


def _moves_made(moves: list[Move], present: ModelVersion | None) -> list[Move]:
    """`moves` without those that were written down, and cut off before the alias moved."""
    champion_after = [move.before for move in moves[1:]] + [str(present.version) if present else None]
    return [
        move
        for move, champion in zip(moves, champion_after, strict=True)
        if champion == move.version or champion != move.before
    ]


def champions(moves: list[Move]) -> list[str]:
    """The champions that still count, the present one last: a rollback takes those after its version off the line."""
    line: list[str] = []
    for move in moves:
        if move.action == "rollback":
            # A version that was champion twice is gone back to step by step: its last time counts.
            kept = next((end for end in range(len(line), 0, -1) if line[end - 1] == move.version), 0)
            line = line[:kept] or [move.version]
        elif line[-1:] != [move.version]:  # a promotion that was cut off is written down twice
            line.append(move.version)
    return line


@contextmanager
def _registry_lock() -> Iterator[None]:
    """Two promotions at once, in one project folder, take turns."""
    make_folder(STATE)
    lock = FileLock(main_project() / REGISTRY_LOCK)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        _log.warning("A version is being registered or promoted; this goes on once that has ended.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def log_served_model(folder: Path, settings: GenerateSettings) -> ModelInfo:
    """Log the model in `folder` as MLflow will serve it, with all its code, into the run that is open if one is.

    The logged folder also gets a generation_config.json with `settings`, so that transformers' own
    `from_pretrained(...).generate()` writes the same titles.
    """
    from pipeline.models.generation import generation_config
    from pipeline.registry import served_model  # loads torch, which nobody needs to list or move versions

    path, before = [*sys.path], sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(served_model.__file__).resolve()),
            artifacts={"model": str(folder.resolve())},
            code_paths=[str(Path(served_model.__file__).resolve().parents[1])],
            model_config={"generate": settings.model_dump()},
            signature=served_model.signature(settings),
            input_example=served_model.EXAMPLE,
            pip_requirements=[f"{name}=={installed_version(name).split('+')[0]}" for name in _REQUIREMENTS],
        )
    finally:
        # MLflow tries the example in the folder that it logs then, and that is gone by now.
        sys.path[:], sys.dont_write_bytecode = path, before
    with TemporaryDirectory() as beside:
        generation_config(folder, settings).save_pretrained(beside)
        MlflowClient().log_model_artifacts(logged.model_id, beside, f"artifacts/{folder.name}")
    return logged


def _log_version(
    client: MlflowClient, name: str, folder: Path, settings: GenerateSettings, run_id: str, tags: dict[str, str]
) -> ModelVersion:
    known = find_run(client, run_id) is not None
    run_name = None if known else f"register {tags['model']}"
    with written_run(client, EXPERIMENT, run_name, run_id=run_id if known else None):
        logged = log_served_model(folder, settings)
    # Before the database knows of the version, which has to find its model after a power loss.
    sync_artifacts(client.get_logged_model(logged.model_id).artifact_location)
    return mlflow.register_model(logged.model_uri, name, tags=tags)


def _version_of(client: MlflowClient, name: str, tags: dict[str, str]) -> ModelVersion | None:
    """The version that already is this work: the same weights, served with the same code and settings."""
    for version, _ in versions(client, name):
        if all(version.tags.get(key) == tags.get(key) for key in _IDENTITY):
            return version
    return None


def _try(name: str, version: ModelVersion) -> None:
    [title] = try_version(name, str(version.version), [TRIAL_TEXT]).titles
    if not title:
        raise Rejected(f"Version {version.version} of '{name}' gives an empty title.")


def _move(
    client: MlflowClient,
    name: str,
    action: str,
    version: ModelVersion,
    before: ModelVersion | None,
    because: str,
    verdict: Verdict | None = None,
    *,
    who: str | None = None,
) -> Move:
    now = time.gmtime()
    because, who = _given(because, who)
    known = version.run_id and find_run(client, version.run_id)
    path = f"{_EVIDENCE[action]}/version-{version.version}-{time.strftime('%Y%m%dT%H%M%SZ', now)}.json"
    move = Move(
        action=action,
        version=str(version.version),
        before=str(before.version) if before else None,
        who=who,
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
        because=because,
        evidence=path if known else None,
        forced=verdict is not None and not verdict.passed,
    )
    if known:
        kept = {"move": asdict(move), "verdict": verdict.as_json() if verdict else None}
        client.log_text(version.run_id, json.dumps(kept, indent=2, ensure_ascii=False), path)
        sync_artifacts(f"{known.info.artifact_uri}/{path}")
    line = json.dumps(asdict(move))
    # Written before the alias moves: a move without its line in the trail could not be rolled back. Of two that are
    # written at once, on two machines, both stay.
    key = f"{_TRAIL}{len(trail(client, name)):06d}.{uuid.uuid4().hex[:8]}"
    _refuse_changed(client, name, before)  # again: to send the evidence may have taken its time
    client.set_registered_model_tag(name, key, line)
    client.set_registered_model_alias(name, CHAMPION, move.version)
    _keep_with_version(client, name, move)
    return move


def _given(because: str, who: str | None) -> tuple[str, str]:
    """As the trail keeps them."""
    return because.strip() or NO_REASON, who or _who()


def _keep_with_version(client: MlflowClient, name: str, move: Move) -> None:
    client.set_model_version_tag(name, move.version, f"{move.action}.{move.when}", json.dumps(asdict(move)))


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _registered(client: MlflowClient, name: str) -> RegisteredModel | None:
    with _none_if_absent():
        return client.get_registered_model(name)
    return None


def _by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    with _none_if_absent():
        return client.get_model_version_by_alias(name, alias)
    return None


def _by_number(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    with _none_if_absent():
        return client.get_model_version(name, number)
    return None


@contextmanager
def _none_if_absent() -> Iterator[None]:
    """Lets pass what MLflow says of a model, a version or an alias that is not there, and nothing else."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
