"""`lectern doctor` on a working machine, and on machines with a problem."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml

from flows.services.doctor import CHECKS, State, python_version
from flows.services.service import free_port
from pipeline.catalogue import add
from pipeline.models.device import WHEELS
from tests.command import lectern
from tests.conftest import ROOT
from tests.training.small import environment
from tests.web_server import web_server

NVIDIA_SMI = """#!/bin/sh
case "$*" in
  --list-gpus) echo 'GPU 0: NVIDIA H200 (UUID: GPU-5e1f0a4e-0000-0000-0000-000000000000)' ;;
  *driver_version*) echo 550.54.15 ;;
  *compute_cap*) echo 9.0 ;;
esac
"""


class Answering(BaseHTTPRequestHandler):
    """A hub that answers every request with 404."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a server that answers."""
    with web_server(Answering) as address:
        yield address


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 10, 9), State.WRONG), ((3, 11, 0), State.OK), ((3, 13, 2), State.OK), ((3, 14, 0), State.WRONG)],
)
def test_every_supported_python_is_accepted(
    version: tuple[int, ...], state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert python_version().state == state


def lines_of(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """Return the state and the text of each check."""
    found = {}
    for line in done.stdout.splitlines():
        name = next(name for name in CHECKS if line[8:].startswith(f"{name} "))
        found[name] = (line.split()[0], line[8 + len(name) :].strip())
    assert found.keys() == CHECKS.keys(), done.stdout + done.stderr
    return found


def test_a_working_machine_gets_a_line_for_each_check(project: Path, hub: str) -> None:
    variables = {**environment(), "HF_ENDPOINT": hub, "HF_TOKEN": "hf_secret_of_a_user"}
    done = lectern("doctor", cwd=project, env=variables)
    found = lines_of(done)
    assert done.returncode == 0
    assert {name for name, (state, _) in found.items() if state == "wrong"} == set()
    assert found["hub"] == ("ok", f"{hub} answers; HF_TOKEN set")
    assert "hf_secret_of_a_user" not in done.stdout + done.stderr
    assert found["MLflow"][1].startswith("sqlite:///mlflow.db")
    assert "GiB free" in found["disk"][1]


@pytest.mark.slow
def test_each_problem_comes_with_a_remedy(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    driver = tmp_path_factory.mktemp("driver")
    (driver / "nvidia-smi").write_text(NVIDIA_SMI)
    (driver / "nvidia-smi").chmod(0o755)
    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text("[core]\n    remote = shelf\n")
    nobody = f"127.0.0.1:{free_port()}"
    add(["t5-small"], catalogue=ROOT / "catalogue.yaml")
    variables = {
        **environment(),
        "PATH": f"{driver}{os.pathsep}{os.environ['PATH']}",
        "HF_ENDPOINT": f"http://{nobody}",
        "HF_HOME": str(driver),
        "MLFLOW_TRACKING_URI": f"http://lectern:swordfish@{nobody}",
        "PREFECT_API_URL": f"http://{nobody}/api",
    }
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    done = lectern("doctor", cwd=project, env=variables)
    found = lines_of(done)
    assert done.returncode == 1
    assert "swordfish" not in done.stdout + done.stderr
    remedies = {
        "GPU": "https://download.pytorch.org/whl/cu126",
        "hub": "HF_ENDPOINT",
        "MLflow": "lectern up",
        "Prefect": "PREFECT_API_URL",
        "DVC remote": "dvc remote add shelf",
    }
    assert {name for name, (state, _) in found.items() if state == "wrong"} == remedies.keys()
    for name, remedy in remedies.items():
        assert remedy in found[name][1]


@pytest.mark.slow
def test_a_hub_that_no_model_needs_is_optional(project: Path) -> None:
    done = lectern("doctor", cwd=project, env={**environment(), "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"})
    assert done.returncode == 0
    assert lines_of(done)["hub"][0] == "warning"
    offline = lectern("doctor", cwd=project, env={**environment(), "HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0
    assert lines_of(offline)["hub"][0] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["raise ImportError('libcudart.so.12: cannot open')", "import os; os.abort()"])
def test_a_broken_library_affects_only_its_own_lines(tmp_path: Path, hub: str, broken: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(broken)
    variables = {
        **environment(),
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}",
        "HF_ENDPOINT": hub,
    }
    real = Path(sys.prefix) / "bin/python"  # where nothing is imported yet
    done = subprocess.run(
        [real, "-m", "lectern", "doctor"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    found = lines_of(done)
    assert done.returncode == 1
    assert {name for name, (state, _) in found.items() if state == "wrong"} == {"torch", "GPU"}
    assert "make install" in found["torch"][1]


def test_the_page_about_gpus_names_existing_builds_and_settings() -> None:
    page = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    assert set(re.findall(rf"{re.escape(WHEELS)}/(cu\d+)", page)) == {"cu126", "cu130"}
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert {"device", "report_to", "micro_batch_tokens", "batch_size", "processes"} <= params["train"].keys()
    for command in set(re.findall(r"^(lectern \w+)", page, re.MULTILINE)):
        assert lectern(*command.split()[1:], "--help", cwd=ROOT).returncode == 0
