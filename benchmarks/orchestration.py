"""Measure what the Prefect flow costs compared with plain `dvc repro`.

    python benchmarks/orchestration.py [--models 8] [--seconds 30] [--slots 4]

The project is made for this benchmark, and its trainings only wait: `--seconds` each, `--slots` of them at once. A
Prefect server is already running and has served a run before, as on an operator's machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from first_run import lectern, run
from machine import describe_machine

from flows.services.prefect_server import api_url, prefect_service
from flows.services.service import free_port

ROOT = Path(__file__).resolve().parents[1]
DVC_YAML = """
stages:
  split:
    cmd: echo {seconds} > split
    outs: [split]
  train:
    foreach: {models}
    do:
      cmd: sleep {seconds} && echo $CUDA_VISIBLE_DEVICES > model-${{item}}
      deps:
        - split
      outs:
        - model-${{item}}
      meta:
        slot: gpu
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--slots", type=int, default=4)
    options = parser.parse_args()
    print(f"{describe_machine(['prefect', 'dvc'])}\n")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_project()
        write_stages(options.models, seconds_each=0)
        port = free_port()
        with prefect_service(port) as server:
            server.wait_until_healthy()
            reporting = {"PREFECT_API_URL": api_url(port), "LECTERN_GPU_SLOTS": str(options.slots)}
            measure(options, reporting)


def measure(options: argparse.Namespace, reporting: dict[str, str]) -> None:
    ideal = options.seconds * -(-options.models // options.slots)
    here, ours = Path.cwd(), {"PYTHONPATH": str(ROOT)}
    run(lectern("run"), here, env=ours | reporting)
    write_stages(options.models, options.seconds)
    trained = run(lectern("run"), here, env=ours | reporting).seconds
    nothing = run(lectern("run"), here, env=ours).seconds
    by_dvc = run([sys.executable, "-m", "dvc", "repro"], here).seconds
    what = f"{options.models} models of {options.seconds} s on {options.slots} slots"
    print("| what | seconds | against |\n|---|--:|---|")
    print(f"| {what} | {trained:.1f} | ideal {ideal} s: {trained / ideal - 1:+.0%} |")
    print(f"| nothing stale | {nothing:.1f} | `dvc repro` {by_dvc:.1f} s |")


def make_project() -> None:
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, check=True)
    Path("prefect.toml").write_bytes((ROOT / "prefect.toml").read_bytes())
    Path("params.yaml").write_text("ingest: {workbook: none.xlsx}\n", encoding="utf-8")


def write_stages(models: int, seconds_each: int) -> None:
    text = DVC_YAML.format(models=list(range(models)), seconds=seconds_each)
    Path("dvc.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
