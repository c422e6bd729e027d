"""Find pretrained models by the addresses that `params.yaml` uses.

`hub:OWNER/NAME@REVISION`   a repository on the Hugging Face hub, or in its local cache
`package:PACKAGE/PATH`      a folder or a GGUF file inside an installed package
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
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but without __all__

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.files import made_once
from pipeline.paths import FETCHED, PARAMS
from pipeline.redaction import hide_passwords
from pipeline.settings import mapping, read_params, train_settings

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

log = logging.getLogger(__name__)

_HUB_SECONDS = 5
_MLFLOW_SECONDS = 5  # for one answer; the client tries twice
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tokenizer"]
_PICKLES = "pytorch_model*.bin"  # the only weights of older repositories; transformers loads them without running code
_COMMIT = re.compile("[0-9a-f]{40}")
_VERSION = re.compile("models:/[^/]+(?:/[^/]+)?")
_NO_VERSIONS = "No versions of model"  # MLflow has no error code for this message
_UNKNOWN_TO_MLFLOW = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def find_checkpoint(address: str) -> Path:
    """Return the local folder or GGUF file for a checkpoint address, and download it if necessary.

    Raises:
        Rejected: The checkpoint is unavailable. The message says what to do.
        UsageError: The address has none of the forms above.
        TemporaryFailure: MLflow does not answer.
    """
    kind, _, rest = address.partition(":")
    match kind:
        case "hub":
            path = _find_on_hub(*_parse_hub_name(rest))
        case "package":
            path = _find_in_package(rest)
        case "models":
            path = _find_in_registry(address)
        case _:
            path = _find_folder(address)
    _refuse_custom_code(path, address)
    return path


def _refuse_custom_code(folder: Path, address: str) -> None:
    """Reject a checkpoint that only its own Python code can open.

    Without this check, transformers asks at the terminal whether to run that code.
    """
    for file, kind in (("config.json", "model_type"), ("tokenizer_config.json", "tokenizer_class")):
        try:
            config = json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # the code that opens the checkpoint reports a missing or damaged file
        if isinstance(config, dict) and config.get("auto_map") and not _is_known(kind, config.get(kind)):
            part = kind.partition("_")[0]
            raise Rejected(
                f"Checkpoint '{address}' is a '{config.get(kind)}' {part}: {file} says that it needs its own Python "
                "code, and Lectern runs no code from checkpoints. Choose another checkpoint in params.yaml."
            )


def _is_known(kind: str, name: object) -> bool:
    import transformers

    if kind == "model_type":
        return name in transformers.CONFIG_MAPPING
    return isinstance(name, str) and hasattr(transformers, name)


def pin_version(address: str) -> str:
    """Replace the alias in a registered model's address by the version that it names now.

    The pinned address means the same weights even if the alias moves. Other addresses are returned unchanged.

    Raises:
        UsageError: The address starts with `models:` and names no version.
        Rejected: MLflow has no such version.
        TemporaryFailure: MLflow does not answer.
    """
    if not address.startswith("models:"):
        return address
    if not _VERSION.fullmatch(address):
        raise UsageError(f"'{address}' names no version. Write models:/NAME@ALIAS or models:/NAME/VERSION.")

    import mlflow
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    _require_registry_answers()
    with _registry_errors_explained(address):
        return "/".join(["models:", *map(str, get_model_name_and_version(mlflow.MlflowClient(), address))])


def require_checkpoints(stages: Iterable[str], *, kind: str = "") -> None:
    """Check within seconds that all pretrained models that `stages` open are available. Download nothing.

    Args:
        stages: Names as in `dvc.yaml`: `train@t5-small`, `score@t5-small`, `baselines`.
        kind: Prefix of the addresses to check, such as `hub:`. By default all addresses are checked.

    Raises:
        Rejected: One or more models are unavailable. The message has a line for each.
    """
    problems = []
    wanted = {setting: address for setting, address in _addresses_in(stages).items() if address.startswith(kind)}
    for setting, address in wanted.items():
        try:
            _require_available(address)
        except (Rejected, UsageError, TemporaryFailure) as error:
            problems.append(f"  {setting}: {error}")
    if problems:
        heading = f"params.yaml: {len(problems)} pretrained model(s) are unavailable:"
        raise Rejected("\n".join([heading, *problems]))


def _addresses_in(stages: Iterable[str]) -> dict[str, str]:
    """Map dotted setting names to the checkpoint addresses that `stages` read. The stages report invalid settings."""
    params = read_params() if PARAMS.exists() else {}
    models, evaluate = mapping(params.get("models")), mapping(params.get("evaluate"))
    found: dict[str, Any] = {}
    for stage in stages:
        name, _, model = stage.partition("@")
        if name == "train":
            entry = mapping(models.get(model))
            found[f"models.{model}.checkpoint"] = entry.get("checkpoint")
            settings = train_settings(params, model)
            if settings.get("epochs") != 0:
                section = f"models.{model}.train" if "bertscore" in mapping(entry.get("train")) else "train"
                found[f"{section}.bertscore.model"] = mapping(settings.get("bertscore")).get("model")
        elif name in ("score", "baselines"):
            found["evaluate.bertscore_model"] = evaluate.get("bertscore_model")
    return {setting: value for setting, value in found.items() if isinstance(value, str) and value != "scratch"}


def _require_available(address: str) -> None:
    """Raise the error that `find_checkpoint` would raise, without a download."""
    kind, _, rest = address.partition(":")
    match kind:
        case "hub":
            name = _parse_hub_name(rest)
            if _find_in_hub_cache(*name) is None:
                _require_on_hub(*name)
        case "models":
            _path_in_version(pin_version(address))
        case _:
            find_checkpoint(address)


def _find_folder(address: str) -> Path:
    folder = Path(address).expanduser()
    if not (folder / "config.json").is_file():
        raise Rejected(
            f"'{address}' is not a model folder: {folder / 'config.json'} does not exist. Write a folder that "
            "transformers saved, hub:OWNER/NAME@REVISION, or package:PACKAGE/PATH."
        )
    return folder.resolve()


def _find_on_hub(repository: str, revision: str) -> Path:
    folder = _find_in_hub_cache(repository, revision)
    if folder is None:
        _require_on_hub(repository, revision)  # fails within seconds; the download retries for minutes
        with _hub_errors_explained(repository, revision):
            folder = _download_snapshot(repository, revision)
    if not _COMMIT.fullmatch(revision):
        log.warning(
            "hub:%s@%s can change its weights at any time. Pin today's commit in params.yaml: hub:%s@%s",
            *(repository, revision, repository, folder.name),
        )
    return folder


def _parse_hub_name(name: str) -> tuple[str, str]:
    """Split `OWNER/NAME@REVISION` into repository and revision."""
    repository, _, revision = name.partition("@")
    if not revision:
        raise UsageError(f"'hub:{name}' names no revision. Write hub:{repository}@REVISION to fix its weights.")
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UsageError(f"'hub:{name}' is not a valid model name. Write hub:OWNER/NAME@REVISION.") from None
    return repository, revision


def _find_in_hub_cache(repository: str, revision: str) -> Path | None:
    """Return the folder in the hub's local cache if it has weights. Use no network."""
    try:
        folder = _download_snapshot(repository, revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return folder if any(folder.glob("*.safetensors")) or any(folder.glob(_PICKLES)) else None


def _download_snapshot(repository: str, revision: str, *, local_files_only: bool = False) -> Path:
    for files in (_HUB_FILES, [*_HUB_FILES, _PICKLES]):
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=files, local_files_only=local_files_only)
        )
        if any(folder.glob("*.safetensors")):
            break
    return folder


def _require_on_hub(repository: str, revision: str) -> None:
    """Check within seconds that the hub has this revision."""
    with _hub_errors_explained(repository, revision):
        HfApi().model_info(repository, revision=revision, timeout=_HUB_SECONDS)


@contextmanager
def _hub_errors_explained(repository: str, revision: str) -> Iterator[None]:
    """Turn errors of the hub's client into `Rejected` with a remedy."""
    import httpx2  # comes with huggingface_hub from 2.0 on; a model that is not on the hub needs neither

    try:
        yield
    except HfHubHTTPError as error:
        raise Rejected(
            f"The Hugging Face hub refuses '{repository}@{revision}' (HTTP {error.response.status_code}). Check name "
            "and revision. A private or gated repository needs HF_TOKEN in the environment."
        ) from None
    except (httpx2.TransportError, OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise Rejected(
            f"The Hugging Face hub cannot be reached, and its local cache has no revision '{revision}' of "
            f"'{repository}'. On a machine with a network, run `hf download {repository} --revision {revision}` and "
            "copy its cache (HF_HOME) to this machine, or choose another model in params.yaml."
        ) from None


def _find_in_package(place: str) -> Path:
    package, _, inside = place.partition("/")
    # Located without an import: Lectern needs only its files, and the package's own imports may be missing.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise Rejected(f"'package:{place}': the Python package '{package}' is not installed. Run `make install`.")
    path = Path(found.submodule_search_locations[0]) / inside
    if not path.exists():
        raise Rejected(
            f"'package:{place}': the package '{package}' has no '{inside}'. Correct the path in params.yaml."
        )
    return path.resolve()


def _find_in_registry(uri: str) -> Path:
    """Return a registered version's model folder. Download it once if its artifact store is remote."""
    uri = pin_version(uri)
    inside = _path_in_version(uri)
    store = artifact_store(uri)
    if is_local(store):
        return Path(store.download_artifacts(inside))
    folder = FETCHED / hashlib.blake2b(store.artifact_uri.encode(), digest_size=16).hexdigest()

    def fetch(aside: Path) -> None:
        log.info("Downloading %s", uri)
        store.download_artifacts(inside, dst_path=str(aside))

    made_once(folder, fetch)
    os.utime(folder)  # `lectern clean` keeps recently used folders
    return (folder / inside).resolve()


def artifact_store(uri: str) -> ArtifactRepository:
    """Return the artifact store that holds the files of a registered version.

    For an alias, the store stays that of the version that the alias names now.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    store = get_artifact_repository(uri)
    while isinstance(store, ModelsArtifactRepository):
        store = store.repo
    return store


def is_local(store: ArtifactRepository) -> bool:
    """Return whether the store's files are on this machine, so that no download is necessary."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    return isinstance(store, LocalArtifactRepository)


def _require_registry_answers() -> None:
    """Check that the registry's server answers. MLflow's own requests would wait for minutes.

    Raises:
        TemporaryFailure: The server gives no answer within seconds.
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
            f"MLflow at {hide_passwords(server)} does not answer: {error.__context__ or error}. Start it with "
            f"`lectern up`, or set {variable} to the address of a running server."
        ) from None


@contextmanager
def _registry_errors_explained(uri: str) -> Iterator[None]:
    """Turn the registry's errors into `Rejected` for a missing version and `TemporaryFailure` for all others."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    server = hide_passwords(mlflow.get_registry_uri())
    try:
        yield
    except MlflowException as error:
        if error.error_code not in _UNKNOWN_TO_MLFLOW and not error.message.startswith(_NO_VERSIONS):
            raise TemporaryFailure(
                f"MLflow at {server} does not answer as it should: {error.message.rstrip('.')}. See its log, then run "
                "the command again."
            ) from None
        raise Rejected(
            f"MLflow at {server} has no '{uri}': {error.message.rstrip('.')}. `lectern models` lists the versions and "
            "their aliases. `lectern promote` makes a version the champion."
        ) from None
    except HTTPError as error:  # from the proxy for artifacts
        raise TemporaryFailure(
            f"MLflow at {server} refuses to send the files of '{uri}': {error}. Check its artifact store, then run "
            "the command again."
        ) from None


def _path_in_version(uri: str) -> str:
    """Return the path of the model folder among the version's artifacts."""
    import mlflow

    with _registry_errors_explained(uri):
        flavors = mlflow.models.Model.load(uri).flavors
    artifacts = flavors.get("python_function", {}).get("artifacts", {})
    if "model" not in artifacts:
        raise Rejected(f"Lectern did not register '{uri}'. `lectern models` lists the versions that it registered.")
    return artifacts["model"]["path"]
