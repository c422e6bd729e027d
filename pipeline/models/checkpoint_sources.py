"""Where a pretrained model lies: one way to write it down, and one way to find it.

`hub:OWNER/NAME@REVISION`   on the Hugging Face hub, or in its local cache
`package:PACKAGE/PATH`      a folder or a GGUF file that an installed package carries
`models:/NAME@ALIAS`        a version of a registered model
anything else               a folder that transformers saved
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.files import made_once
from pipeline.paths import FETCHED, PARAMS
from pipeline.redaction import hide_passwords
from pipeline.settings import mapping, read_params, train_settings

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

log = logging.getLogger(__name__)

_HUB_SECONDS = 5
_MLFLOW_SECONDS = 5  # to answer at all; it is asked twice
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tokenizer"]
_PICKLES = "pytorch_model*.bin"  # all that older repositories have; transformers runs no code that is in them
_COMMIT = re.compile("[0-9a-f]{40}")
_VERSION = re.compile("models:/[^/]+(?:/[^/]+)?")
_NO_VERSIONS = "No versions of model"  # MLflow's words, without a code of their own
_UNKNOWN_TO_MLFLOW = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def find(place: str) -> Path:
    """The local folder, or GGUF file, that `place` stands for; fetched if it must and can be.

    Raises:
        Rejected: it cannot be had; says what can be done.
        UsageError: `place` is not written as above.
        TemporaryFailure: MLflow does not answer.
    """
    kind, _, rest = place.partition(":")
    match kind:
        case "hub":
            found = _find_on_hub(*_repository(rest))
        case "package":
            found = _find_in_package(rest)
        case "models":
            found = _find_in_registry(place)
        case _:
            found = _find_folder(place)
    _refuse_code(found, place)
    return found


def _refuse_code(folder: Path, place: str) -> None:
    """transformers would ask at the terminal whether to run the code that a foreign type of model brings along."""
    for file, kind in (("config.json", "model_type"), ("tokenizer_config.json", "tokenizer_class")):
        try:
            config = json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # whoever opens it says so
        if isinstance(config, dict) and config.get("auto_map") and not _is_known(kind, config.get(kind)):
            what = kind.partition("_")[0]
            raise Rejected(
                f"'{place}' is a '{config.get(kind)}' {what}, which only code that it brings along can open ({file}), "
                "and Lectern runs no such code. Name another one in params.yaml."
            )


def _is_known(kind: str, name: object) -> bool:
    import transformers

    if kind == "model_type":
        return name in transformers.CONFIG_MAPPING
    return isinstance(name, str) and hasattr(transformers, name)


def pinned(place: str) -> str:
    """`place`; of a registered model with the version that its alias names now, so that all who ask for what this gives
    mean the same weights, should the alias move meanwhile.

    Raises:
        UsageError: it is no name of a registered model's version.
        Rejected: MLflow has no such version.
        TemporaryFailure: MLflow does not answer.
    """
    if not place.startswith("models:"):
        return place
    if not _VERSION.fullmatch(place):
        raise UsageError(f"'{place}' names no version. Write models:/NAME@ALIAS or models:/NAME/VERSION.")

    import mlflow
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    _ask_registry()
    with _registry_says_no(place):
        return "/".join(["models:", *map(str, get_model_name_and_version(mlflow.MlflowClient(), place))])


def require(stages: Iterable[str], *, kind: str = "") -> None:
    """Look for every pretrained model that `stages` will open, and fetch none: for seconds, ahead of hours of work.

    Args:
        stages: named as in `dvc.yaml`: `train@t5-small`, `score@t5-small`, `baselines`.
        kind: the beginning of the places to look at, such as `hub:`; all of them without it.

    Raises:
        Rejected: with a line for each that cannot be had.
    """
    problems = []
    wanted = {knob: place for knob, place in _wanted_by(stages).items() if place.startswith(kind)}
    for knob, place in wanted.items():
        try:
            _look(place)
        except (Rejected, UsageError, TemporaryFailure) as error:
            problems.append(f"  {knob}: {error}")
    if problems:
        raise Rejected("\n".join([f"{len(problems)} pretrained model(s) of params.yaml cannot be had:", *problems]))


def _wanted_by(stages: Iterable[str]) -> dict[str, str]:
    """Knob → place. What is missing or misspelt there is for the stage itself to name."""
    params = read_params() if PARAMS.exists() else {}
    models, evaluate = mapping(params.get("models")), mapping(params.get("evaluate"))
    wanted = {}
    for stage in stages:
        name, _, model = stage.partition("@")
        if name == "train":
            settings = mapping(models.get(model))
            wanted[f"models.{model}.checkpoint"] = settings.get("checkpoint")
            knobs = train_settings(params, model)
            if knobs.get("epochs") != 0:
                at = f"models.{model}.train" if "bertscore" in mapping(settings.get("train")) else "train"
                wanted[f"{at}.bertscore.model"] = mapping(knobs.get("bertscore")).get("model")
        elif name in ("score", "baselines"):
            wanted["evaluate.bertscore_model"] = evaluate.get("bertscore_model")
    return {knob: place for knob, place in wanted.items() if isinstance(place, str) and place != "scratch"}


def _look(place: str) -> None:
    """Raises what `find` would, without fetching anything."""
    kind, _, rest = place.partition(":")
    match kind:
        case "hub":
            name = _repository(rest)
            if _in_cache(*name) is None:
                _ask_hub(*name)
        case "models":
            _path_in_version(pinned(place))
        case _:
            find(place)


def _find_folder(place: str) -> Path:
    folder = Path(place).expanduser()
    if not (folder / "config.json").is_file():
        raise Rejected(
            f"'{place}' is not a model folder: there is no {folder / 'config.json'}. Write a folder that transformers "
            "saved, hub:OWNER/NAME@REVISION, or package:PACKAGE/PATH for one inside an installed package."
        )
    return folder.resolve()


def _find_on_hub(repository: str, revision: str) -> Path:
    folder = _in_cache(repository, revision)
    if folder is None:
        _ask_hub(repository, revision)  # the download itself has more patience than a person
        with _hub_says_no(repository, revision):
            folder = _snapshot(repository, revision)
    if not _COMMIT.fullmatch(revision):
        log.warning(
            "hub:%s@%s may be other weights tomorrow. In params.yaml, write the commit that it is now: hub:%s@%s",
            *(repository, revision, repository, folder.name),
        )
    return folder


def _repository(name: str) -> tuple[str, str]:
    """Repository and revision of `OWNER/NAME@REVISION`."""
    repository, _, revision = name.partition("@")
    if not revision:
        raise UsageError(f"'hub:{name}' names no revision. Write hub:{repository}@REVISION, so that it cannot change.")
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UsageError(f"'hub:{name}' is no name of a model on the hub. Write hub:OWNER/NAME@REVISION.") from None
    return repository, revision


def _in_cache(repository: str, revision: str) -> Path | None:
    """The folder in the hub's local cache, where its weights are there; no network is asked."""
    try:
        folder = _snapshot(repository, revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return folder if any(folder.glob("*.safetensors")) or any(folder.glob(_PICKLES)) else None


def _snapshot(repository: str, revision: str, *, local_files_only: bool = False) -> Path:
    for files in (_HUB_FILES, [*_HUB_FILES, _PICKLES]):
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=files, local_files_only=local_files_only)
        )
        if any(folder.glob("*.safetensors")):
            break
    return folder


def _ask_hub(repository: str, revision: str) -> None:
    """Asks the hub whether it has that revision, for a few seconds."""
    with _hub_says_no(repository, revision):
        HfApi().model_info(repository, revision=revision, timeout=_HUB_SECONDS)


@contextmanager
def _hub_says_no(repository: str, revision: str) -> Iterator[None]:
    """Makes of what goes wrong between us and the hub a refusal that says what can be done."""
    try:
        yield
    except HfHubHTTPError as error:
        raise Rejected(
            f"The Hugging Face hub refuses '{repository}@{revision}' ({error.response.status_code}). Check name and "
            "revision; a private or gated one needs HF_TOKEN in the environment."
        ) from None
    except (httpx2.TransportError, OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise Rejected(
            f"The Hugging Face hub cannot be reached for '{repository}', and its local cache does not hold revision "
            f"'{revision}'. With a network, `hf download {repository} --revision {revision}` fetches it; bring "
            "that cache here (HF_HOME), or name another model in params.yaml."
        ) from None


def _find_in_package(place: str) -> Path:
    package, _, inside = place.partition("/")
    # Found, never imported: only its files are wanted, and what it imports need not be installed.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise Rejected(f"'package:{place}': the package '{package}' is not installed. Run `make install`.")
    path = Path(found.submodule_search_locations[0]) / inside
    if not path.exists():
        raise Rejected(f"'package:{place}': the installed package '{package}' has no '{inside}'.")
    return path.resolve()


def _find_in_registry(uri: str) -> Path:
    """Where the version's model folder is, if that is on this machine; else a copy of it, which is fetched once."""
    uri = pinned(uri)
    inside = _path_in_version(uri)
    store = store_of(uri)
    if is_here(store):
        return Path(store.download_artifacts(inside))
    folder = FETCHED / hashlib.blake2b(store.artifact_uri.encode(), digest_size=16).hexdigest()

    def fetch(aside: Path) -> None:
        log.info("fetching %s, once", uri)
        store.download_artifacts(inside, dst_path=str(aside))

    made_once(folder, fetch)
    os.utime(folder)  # `lectern clean` sees that it is used
    return (folder / inside).resolve()


def store_of(uri: str) -> ArtifactRepository:
    """What holds the files of that registered version: of the one that an alias names now, should it move meanwhile."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    store = get_artifact_repository(uri)
    while isinstance(store, ModelsArtifactRepository):
        store = store.repo
    return store


def is_here(store: ArtifactRepository) -> bool:
    """Whether its files lie on this machine, and need not be fetched."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    return isinstance(store, LocalArtifactRepository)


def _ask_registry() -> None:
    """Whether the registry's server, where it is one, answers at all: MLflow's own requests wait for minutes.

    Raises:
        TemporaryFailure: it gives no answer within seconds.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    server = mlflow.get_registry_uri()
    if not server.startswith(("http://", "https://")):
        return
    ask = {"endpoint": "/health", "method": "GET", "timeout": _MLFLOW_SECONDS, "max_retries": 1}
    try:
        http_request(get_default_host_creds(server), raise_on_status=False, **ask)
    except MlflowException as error:
        variable = "MLFLOW_REGISTRY_URI" if "MLFLOW_REGISTRY_URI" in os.environ else "MLFLOW_TRACKING_URI"
        raise TemporaryFailure(
            f"MLflow at {hide_passwords(server)} does not answer: {error.__context__ or error}. Start it "
            f"(`lectern up`), or set {variable} to one that runs."
        ) from None


@contextmanager
def _registry_says_no(uri: str) -> Iterator[None]:
    """Makes of what the registry answers an error of ours; what its database lacks is no matter of that version."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    server = hide_passwords(mlflow.get_registry_uri())
    try:
        yield
    except MlflowException as error:
        if error.error_code not in _UNKNOWN_TO_MLFLOW and not error.message.startswith(_NO_VERSIONS):
            raise TemporaryFailure(f"MLflow at {server} does not answer as it should: {error.message}") from None
        raise Rejected(
            f"MLflow at {server} has no '{uri}': {error.message.rstrip('.')}. `lectern models` lists the versions and "
            "their aliases; `lectern promote` makes one the champion."
        ) from None
    except HTTPError as error:  # of the artifacts that it hands on
        raise TemporaryFailure(f"MLflow at {server} does not give out the files of '{uri}': {error}") from None


def _path_in_version(uri: str) -> str:
    """Where among the artifacts of that version its model folder lies."""
    import mlflow

    with _registry_says_no(uri):
        flavors = mlflow.models.Model.load(uri).flavors
    artifacts = flavors.get("python_function", {}).get("artifacts", {})
    if "model" not in artifacts:
        raise Rejected(f"'{uri}' is not a model that Lectern registered.")
    return artifacts["model"]["path"]
