"""`lectern doctor`: one line about each thing that Lectern needs, and what to do where something is wrong.

Each probe runs in a process of its own, all at once: a broken library, a crash or a server that hangs spoils one line.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.paths import PARAMS
from pipeline.redaction import hide_passwords, without_user

PROBE_SECONDS = 60
"""Seconds for a probe. It takes a few; the import of torch takes longer on a slow disk or a busy machine."""

_ANSWER_SECONDS = 4  # for a server
_GIB = 1 << 30
_FULL_GIB, _TIGHT_GIB = 1, 10
_PYTHON = (3, 11)
_INSTALL = "Run `make install` in the project's folder."


class State(StrEnum):
    """State of one checked thing. `WRONG` means that something needed does not work, and the command ends with 1."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One line: how a thing is, and what to do about it."""

    state: State
    said: str
    remedy: str = ""

    def line(self, name: str) -> str:
        words = " ".join(filter(None, [self.said, self.remedy]))
        return hide_passwords(f"{self.state:<7} {name:<10} {' '.join(words.split())}")


def python_version() -> Finding:
    """The version of Python, and whether Lectern's packages are there."""
    said = f"{sys.version.split()[0]}, {sys.executable}"
    if sys.version_info[:2] != _PYTHON:
        return Finding(State.WRONG, f"{said}.", "Lectern needs Python 3.11: remove .venv and run `make install`.")
    return Finding(State.OK, said)


def torch_build() -> Finding:
    """The build of torch."""
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    return Finding(State.OK, f"{torch.__version__}, built for {torch.version.hip or built}")


def gpu_and_driver() -> Finding:
    """The GPU, its driver, and whether torch can use it."""
    from pipeline.models.device import DriverFailed, driver_version, gpu_problem, listed_gpus, visible_devices

    if visible_devices() == []:
        return Finding(State.OK, "none: CUDA_VISIBLE_DEVICES hides all GPUs, and trainings run on the CPU")
    try:
        names = listed_gpus()
    except DriverFailed as error:
        return Finding(State.WARNING, f"nvidia-smi fails: {error}.", "Reinstall NVIDIA's driver, or restart.")
    if problem := gpu_problem():
        meant = _params("train").get("device") == "cpu"
        return Finding(
            State.WARNING if meant else State.WRONG,
            problem,
            "Until then, train.device: cpu trains on the CPU." if meant else "Or set train.device: cpu in params.yaml.",
        )
    if not names:
        return Finding(State.OK, "none: trainings run on the CPU")
    return Finding(State.OK, f"{', '.join(names)}, driver {driver_version() or 'unknown'}")


def hub_or_mirror() -> Finding:
    """The Hugging Face hub or its mirror."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    token = f"HF_TOKEN {'set' if os.environ.get('HF_TOKEN') else 'not set'}"
    if _is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE"):
        state, said = State.OK, f"{endpoint} is not asked: HF_HUB_OFFLINE is set; {token}"
    else:
        why = _silence(endpoint)
        if why is None:
            return Finding(State.OK, f"{endpoint} answers; {token}")
        state, said = State.WARNING, f"{endpoint} does not answer: {why}; {token}"
    missing = _missing_from_hub()
    if missing:
        return Finding(State.WRONG, f"{said}.", f"{missing} Set HF_ENDPOINT to a mirror, or unset HF_HUB_OFFLINE.")
    return Finding(state, f"{said}.", "No contestant of params.yaml needs it now.")


def tracking_server() -> Finding:
    """The tracking server or database."""
    if find_spec("mlflow") is None:
        return Finding(State.WRONG, "not installed.", _INSTALL)
    address = os.environ["MLFLOW_TRACKING_URI"]  # set by `pipeline` where the user has not
    parts = urlsplit(address)
    remedy = "Start it (`lectern up`), or set MLFLOW_TRACKING_URI to one that runs."
    if parts.scheme in ("http", "https"):
        why = _silence(f"{address.rstrip('/')}/health")
        return Finding(State.WRONG, f"{address} does not answer: {why}.", remedy) if why else _answers(address)
    if parts.scheme == "sqlite":
        file = Path(unquote(address.removeprefix("sqlite:///")))
        if file.exists() and not os.access(file, os.W_OK):
            return Finding(State.WRONG, f"{file} may not be written.", "Give this user the right to write it.")
        return Finding(State.OK, f"{address}{'' if file.exists() else ', created by the first run'}")
    return Finding(State.OK, f"{address}, not asked")


def prefect_server() -> Finding:
    """The Prefect server that a flow run would report to."""
    from flows.services.prefect_server import URL_FILE, configured_url

    if url := configured_url():
        why = _silence(f"{url.rstrip('/')}/health")
        remedy = "Start it, or unset PREFECT_API_URL to do without it."
        return Finding(State.WRONG, f"{url} does not answer: {why}.", remedy) if why else _answers(url)
    url = URL_FILE.read_text(encoding="utf-8").strip() if URL_FILE.exists() else ""
    if url and _silence(f"{url}/health") is None:
        return Finding(State.OK, f"{url} answers, of `lectern up`")
    return Finding(State.OK, "no server runs; `lectern run` starts one for each run")


def dvc_remote() -> Finding:
    """The remote that `dvc push` and `dvc pull` use by default."""
    from flows.graph.remote import default_remote

    if not Path(".dvc").is_dir():
        return Finding(State.WARNING, "this folder is no DVC project.", "Run this in the project's folder.")
    remote = default_remote(Path())
    if remote is None:
        return Finding(State.OK, "no default remote: data and models are on this machine only")
    name, url = remote
    if not url:
        return Finding(State.WRONG, f"the default remote '{name}' has no address.", f"Run: dvc remote add {name} URL")
    scheme = urlsplit(url).scheme
    if scheme == "s3" and find_spec("dvc_s3") is None:
        remedy = "Run: pip install --no-deps -r requirements-team.txt"
        return Finding(State.WRONG, f"{url} needs dvc-s3, which is not installed.", remedy)
    if not scheme and not Path(url).exists():
        return Finding(State.WARNING, f"{url} does not exist.", "`dvc push` creates it; mount it if it is a share.")
    return Finding(State.OK, f"{url}{', not asked' if scheme else ''}")


def free_disk() -> Finding:
    """Free space where the project is."""
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    said = f"{free:.1f} GiB free in {Path.cwd()}"
    remedy = "`lectern clean` shows what may go."
    if free < _FULL_GIB:
        return Finding(State.WRONG, f"{said}.", remedy)
    if free < _TIGHT_GIB:
        return Finding(State.WARNING, f"{said}: little for checkpoints of large models.", remedy)
    return Finding(State.OK, said)


PROBES: dict[str, Callable[[], Finding]] = {
    "Python": python_version,
    "torch": torch_build,
    "GPU": gpu_and_driver,
    "hub": hub_or_mirror,
    "MLflow": tracking_server,
    "Prefect": prefect_server,
    "DVC remote": dvc_remote,
    "disk": free_disk,
}


def examine(name: str) -> Finding:
    """The finding of that probe, which runs in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flows.services.doctor", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Finding(State.WRONG, f"no answer within {PROBE_SECONDS} s.", "Try again; then look at this part.")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        return Finding(State(found["state"]), found["said"], found["remedy"])
    except (IndexError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return Finding(State.WRONG, f"the probe ended with exit code {done.returncode}: {last}.", _INSTALL)


def main() -> int:
    """Print a line for each probe. Exit code 0: all that is needed works; 1: something does not."""
    with ThreadPoolExecutor(len(PROBES)) as pool:
        findings = dict(zip(PROBES, pool.map(examine, PROBES), strict=True))
    for name, finding in findings.items():
        print(finding.line(name))
    return int(any(finding.state == State.WRONG for finding in findings.values()))


def _run(probe: Callable[[], Finding]) -> Finding:
    """Run `probe`, and report a missing or broken library as its finding."""
    try:
        return probe()
    except ModuleNotFoundError as error:
        return Finding(State.WRONG, f"{error.name} is not installed.", _INSTALL)
    except (Rejected, UsageError, TemporaryFailure) as error:
        return Finding(State.WRONG, str(error))
    except Exception as error:  # a broken installation fails in any way
        return Finding(State.WRONG, f"{type(error).__name__}: {error}.", _INSTALL)


def _silence(address: str) -> str | None:
    """Why nothing answers at `address`; None if a server does, whatever its answer."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(without_user(address), method="HEAD"), timeout=_ANSWER_SECONDS
        ):
            return None
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}" if error.code >= 500 else None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error))


def _answers(address: str) -> Finding:
    return Finding(State.OK, f"{address} answers")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().upper() in ("1", "TRUE", "YES", "ON")


def _params(section: str) -> dict[str, Any]:
    """That section of params.yaml; empty where it cannot be read, which its own stage says."""
    from pipeline.settings import mapping, read_params

    try:
        return dict(mapping(read_params().get(section))) if PARAMS.exists() else {}
    except UsageError:
        return {}


def _missing_from_hub() -> str:
    """Pretrained models that the contestants need and the hub's local cache lacks, in words; empty if it has all."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read as the library is imported: it need not wait for the hub again
    from pipeline.models.checkpoint_sources import require_checkpoints
    from pipeline.settings import read_contestants

    try:
        contestants = read_contestants()
    except UsageError:  # not a project, or settings that every stage refuses
        return ""
    try:
        require_checkpoints((f"{stage}@{model}" for model in contestants for stage in ("train", "score")), kind="hub:")
    except Rejected as error:
        return str(error)
    return ""


if __name__ == "__main__":
    if sys.argv[1:]:
        logging.disable()
        print(json.dumps(asdict(_run(PROBES[sys.argv[1]]))))
        sys.exit()
    sys.exit(main())
