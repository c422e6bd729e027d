"""`lectern doctor`: check everything that Lectern needs, one line each, and say what to do about each problem.

The checks run at the same time, each in its own process: a broken library, a crash or a hanging server affects only
its own line.
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
from urllib.parse import urlsplit

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.experiments import sqlite_file
from pipeline.paths import PARAMS
from pipeline.redaction import hide_passwords, without_user

CHECK_SECONDS = 60
"""Time limit of a check: most take a few seconds, the import of torch takes longer on a slow disk."""

_ANSWER_SECONDS = 4  # for a server
_GIB = 1 << 30
_FULL_GIB, _TIGHT_GIB = 1, 10
_PYTHONS = ((3, 11), (3, 12), (3, 13))
_INSTALL = "Run `make install` in the project's folder."


class State(StrEnum):
    """Result of a check. `WRONG` means that something Lectern needs does not work; the command then exits with 1."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """State of the checked thing, and what to do about it."""

    state: State
    message: str
    remedy: str = ""

    def line(self, name: str) -> str:
        """Return the line to print for the check with that name."""
        text = " ".join(f"{self.message} {self.remedy}".split())
        return hide_passwords(f"{self.state:<7} {name:<10} {text}")


def python_version() -> Finding:
    """Check the version of Python."""
    message = f"{sys.version.split()[0]}, {sys.executable}"
    if sys.version_info[:2] not in _PYTHONS:
        remedy = "Lectern needs Python 3.11, 3.12 or 3.13: remove .venv, then run `make install`."
        return Finding(State.WRONG, f"{message}.", remedy)
    return Finding(State.OK, message)


def torch_build() -> Finding:
    """Check that torch can be imported, and name its build."""
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    return Finding(State.OK, f"{torch.__version__}, built for {torch.version.hip or built}")


def gpu_and_driver() -> Finding:
    """Check the GPU, its driver, and that torch can use it."""
    from pipeline.models.device import DriverFailed, driver_version, gpu_problem, listed_gpus, visible_devices

    if visible_devices() == []:
        return Finding(State.OK, "CUDA_VISIBLE_DEVICES hides all GPUs; models train on the CPU")
    try:
        names = listed_gpus()
    except DriverFailed as error:
        return Finding(State.WARNING, f"nvidia-smi fails: {error}.", "Restart, or reinstall NVIDIA's driver.")
    if problem := gpu_problem():
        cpu_chosen = _params("train").get("device") == "cpu"
        return Finding(
            State.WARNING if cpu_chosen else State.WRONG,
            problem,
            "Until then, models train on the CPU, as train.device says."
            if cpu_chosen
            else "Or set train.device: cpu in params.yaml.",
        )
    if not names:
        return Finding(State.OK, "no GPU; models train on the CPU")
    return Finding(State.OK, f"{', '.join(names)}, driver {driver_version() or 'unknown'}")


def hub_or_mirror() -> Finding:
    """Check the Hugging Face hub or its mirror."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    token = f"HF_TOKEN {'set' if os.environ.get('HF_TOKEN') else 'not set'}"
    if _is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE"):
        state, message = State.OK, f"{endpoint} is not used: HF_HUB_OFFLINE is set; {token}"
    else:
        why = _connection_problem(endpoint)
        if why is None:
            return Finding(State.OK, f"{endpoint} answers; {token}")
        state, message = State.WARNING, f"{endpoint} does not answer: {why}; {token}"
    missing = _missing_from_hub()
    if missing:
        return Finding(State.WRONG, f"{message}.", f"{missing} Set HF_ENDPOINT to a mirror, or unset HF_HUB_OFFLINE.")
    return Finding(state, f"{message}.", "No model under contestants in params.yaml needs it now.")


def tracking_server() -> Finding:
    """Check MLflow's tracking server or database."""
    if find_spec("mlflow") is None:
        return Finding(State.WRONG, "not installed.", _INSTALL)
    address = os.environ["MLFLOW_TRACKING_URI"]  # `pipeline` sets a default
    remedy = "Start it (`lectern up`), or set MLFLOW_TRACKING_URI to a running server."
    if address.startswith(("http://", "https://")):
        why = _connection_problem(f"{address.rstrip('/')}/health")
        return Finding(State.WRONG, f"{address} does not answer: {why}.", remedy) if why else _answers(address)
    if file := sqlite_file(address):
        if file.exists() and not os.access(file, os.W_OK):
            return Finding(State.WRONG, f"This user may not write {file}.", "Change the file's permissions.")
        return Finding(State.OK, f"{address}{'' if file.exists() else ', which the first run creates'}")
    return Finding(State.OK, f"{address}, not checked")


def prefect_server() -> Finding:
    """Check the Prefect server to which a flow run would report."""
    from flows.services.prefect_server import URL_FILE, configured_url

    if url := configured_url():
        why = _connection_problem(f"{url.rstrip('/')}/health")
        remedy = "Start it, or unset PREFECT_API_URL to use a server on this machine."
        return Finding(State.WRONG, f"{url} does not answer: {why}.", remedy) if why else _answers(url)
    url = URL_FILE.read_text(encoding="utf-8").strip() if URL_FILE.exists() else ""
    if url and _connection_problem(f"{url}/health") is None:
        return Finding(State.OK, f"{url} answers (started by `lectern up`)")
    return Finding(State.OK, "no server is running; `lectern run` starts one for each run")


def dvc_remote() -> Finding:
    """Check the remote that `dvc push` and `dvc pull` use by default."""
    from dvc.config import Config

    if not Path(".dvc").is_dir():
        return Finding(State.WARNING, "this folder is not a DVC project.", "Run this in the project's folder.")
    config = Config(dvc_dir=str(Path(".dvc").resolve()))
    name = config["core"].get("remote")
    if name is None:
        return Finding(State.OK, "no default remote; data and models are on this machine only")
    url = config["remote"].get(name, {}).get("url")
    if not url:
        return Finding(State.WRONG, f"the default remote '{name}' has no address.", f"Run: dvc remote add {name} URL")
    scheme = urlsplit(url).scheme
    if scheme == "s3" and find_spec("dvc_s3") is None:
        remedy = "Run: pip install --no-deps -r requirements-team.txt"
        return Finding(State.WRONG, f"{url} needs dvc-s3, which is not installed.", remedy)
    if not scheme and not Path(url).exists():
        return Finding(State.WARNING, f"{url} does not exist.", "`dvc push` creates it. Mount a network share.")
    return Finding(State.OK, f"{url}{', not checked' if scheme else ''}")


def free_disk() -> Finding:
    """Check the free disk space of the project's folder."""
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    message = f"{free:.1f} GiB free in {Path.cwd()}"
    remedy = "`lectern clean` shows what can be removed."
    if free < _FULL_GIB:
        return Finding(State.WRONG, f"{message}.", remedy)
    if free < _TIGHT_GIB:
        return Finding(State.WARNING, f"{message}, which is little for checkpoints of large models.", remedy)
    return Finding(State.OK, message)


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": python_version,
    "torch": torch_build,
    "GPU": gpu_and_driver,
    "hub": hub_or_mirror,
    "MLflow": tracking_server,
    "Prefect": prefect_server,
    "DVC remote": dvc_remote,
    "disk": free_disk,
}


def run_in_child(name: str) -> Finding:
    """Run the check with that name in its own process."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flows.services.doctor", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=CHECK_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Finding(State.WRONG, f"the check took longer than {CHECK_SECONDS} s.", "Try again on an idle machine.")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        return Finding(State(found["state"]), found["message"], found["remedy"])
    except (IndexError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Finding(State.WRONG, f"the check exited with {done.returncode}: {last}.", _INSTALL)


def main() -> int:
    """Print a line for each check, and return the exit code: 1 if a needed thing does not work, else 0."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        findings = dict(zip(CHECKS, pool.map(run_in_child, CHECKS), strict=True))
    for name, finding in findings.items():
        print(finding.line(name))
    return int(any(finding.state == State.WRONG for finding in findings.values()))


def _run(check: Callable[[], Finding]) -> Finding:
    """Run `check`, and turn a missing or broken library into a finding."""
    try:
        return check()
    except ModuleNotFoundError as error:
        return Finding(State.WRONG, f"{error.name} is not installed.", _INSTALL)
    except (Rejected, UsageError, TemporaryFailure) as error:
        return Finding(State.WRONG, str(error))
    except Exception as error:  # a broken installation can raise anything
        return Finding(State.WRONG, f"{type(error).__name__}: {error}.", _INSTALL)


def _connection_problem(address: str) -> str | None:
    """Explain why no server answers at `address`; None if one does, even with a client error."""
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
    """Read a section of params.yaml; return nothing if the file is wrong, which the stages report."""
    from pipeline.settings import mapping, read_params

    try:
        return dict(mapping(read_params().get(section))) if PARAMS.exists() else {}
    except UsageError:
        return {}


def _missing_from_hub() -> str:
    """Explain which pretrained models the contestants need and the hub's local cache lacks; empty if it has all."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported; it then does not wait for the hub again
    from pipeline.models.checkpoint_sources import require_checkpoints
    from pipeline.settings import read_contestants

    try:
        contestants = read_contestants()
    except UsageError:  # not a project, or wrong settings, which every stage reports
        return ""
    try:
        require_checkpoints((f"{stage}@{model}" for model in contestants for stage in ("train", "score")), kind="hub:")
    except Rejected as error:
        return str(error)
    return ""


if __name__ == "__main__":
    if sys.argv[1:]:
        logging.disable()
        print(json.dumps(asdict(_run(CHECKS[sys.argv[1]]))))
        sys.exit()
    sys.exit(main())
