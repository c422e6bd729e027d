"""Where a pretrained model lies: one way to write it down, and one way to find it.

`hub:OWNER/NAME@REVISION`   on the Hugging Face hub, or in its local cache
`package:PACKAGE/PATH`      a folder or a GGUF file that an installed package carries
`models:/NAME@ALIAS`        a version of a registered model
anything else               a folder that transformers saved
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from pipeline.errors import Misused, Refused

_HUB_SECONDS = 5
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]


def find(place: str) -> Path:
    """The local folder, or GGUF file, that `place` stands for; fetched if it must and can be.

    Raises:
        Refused: it cannot be had; says what can be done.
        Misused: `place` is not written as above.
    """
    kind, _, rest = place.partition(":")
    if kind == "hub":
        return _find_on_hub(rest)
    if kind == "package":
        return _find_in_package(rest)
    if kind == "models":
        return _find_in_registry(place)
    folder = Path(place).expanduser()
    if not (folder / "config.json").is_file():
        raise Refused(
            f"'{place}' is not a model folder: there is no {folder / 'config.json'}. Write a folder that transformers "
            "saved, hub:OWNER/NAME@REVISION, or package:PACKAGE/PATH for one inside an installed package."
        )
    return folder.resolve()


def _find_on_hub(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if not revision:
        raise Misused(f"'hub:{name}' names no revision. Write hub:{repository}@REVISION, so that it cannot change.")
    try:
        folder = _snapshot(repository, revision, _HUB_FILES)
        if not any(folder.glob("*.safetensors")):
            # Older repositories have nothing else; transformers reads these without unpickling code.
            folder = _snapshot(repository, revision, [*_HUB_FILES, "*.bin"])
    except LocalEntryNotFoundError:
        raise Refused(
            f"The Hugging Face hub cannot be reached for '{repository}', and its local cache does not hold revision "
            f"'{revision}'. With a network, `hf download {repository} --revision {revision}` fetches it; bring "
            "that cache here (HF_HOME), or name another model in params.yaml."
        ) from None
    except HFValidationError:
        raise Misused(f"'hub:{name}' is no name of a model on the hub. Write hub:OWNER/NAME@REVISION.") from None

    except HfHubHTTPError as error:
        raise Refused(
            f"The Hugging Face hub refuses '{repository}@{revision}' ({error.response.status_code})."
        ) from None
    return folder


def _snapshot(repository: str, revision: str, files: list[str]) -> Path:
    return Path(snapshot_download(repository, revision=revision, allow_patterns=files, etag_timeout=_HUB_SECONDS))


def _find_in_package(place: str) -> Path:
    package, _, inside = place.partition("/")
    # Found, never imported: only its files are wanted, and what it imports need not be installed.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise Refused(f"'package:{place}': the package '{package}' is not installed. Run `make install`.")
    path = Path(found.submodule_search_locations[0]) / inside
    if not path.exists():
        raise Refused(f"'package:{place}': the installed package '{package}' has no '{inside}'.")
    return path.resolve()


def _find_in_registry(uri: str) -> Path:
    import mlflow

    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except mlflow.exceptions.MlflowException as error:
        raise Refused(f"'{uri}' cannot be had from MLflow: {error.message}") from None
    flavor = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
    if "model" not in flavor.get("artifacts", {}):
        raise Refused(f"'{uri}' is not a model that Lectern registered.")
    return folder / flavor["artifacts"]["model"]["path"]
