"""The comparison on a GPU runs anywhere, with few packages."""

from __future__ import annotations

import json
import re
import subprocess
import venv
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PACKAGES = ("torch", "transformers", "accelerate", "peft", "pandas", "pydantic", "safetensors")


def test_both_sides_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(tmp_path)
    gpu = import_module("gpu")
    monkeypatch.setattr(gpu, "RATE", 3e-3)  # few steps must be enough to learn something
    gpu.write_texts(tmp_path, examples=28, words=12)
    gpu.write_random_checkpoint(tmp_path / "t5-tiny", "t5-tiny", gpu.read_texts(str(tmp_path), "train")["text"])
    task = gpu.Task("t5-tiny", epochs=1, batch=4, micro_batch_tokens=64)
    peer, ours = (gpu.measure(side, str(tmp_path), json.dumps(asdict(task))) for side in ("peer", "lectern"))
    assert ours["loss"] == pytest.approx(peer["loss"], rel=0.02)
    assert ours["loss"] < 8.9  # of equal probabilities for all tokens: the logarithm of 8,000 is 8.99
    assert (ours["steps"], ours["tokens"], ours["operations"]) == (peer["steps"], peer["tokens"], peer["operations"])
    assert min(ours["seconds"], ours["operations"], ours["memory"]) > 0


@pytest.mark.slow
def test_the_packages_that_it_names_are_enough(tmp_path: Path) -> None:
    python = environment_with(PACKAGES, tmp_path / "environment")
    words = ["--models", "t5-tiny", "--examples", "28", "--epochs", "1", "--batch", "4", "--words", "12"]
    command = [python, BENCHMARKS / "gpu.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\| t5-tiny \| (?:peer|lectern) \| [\d,]+ \| [\d.]+% \|", done.stdout, re.MULTILINE)) == 2
    assert "times as many tokens a second as the peer" in done.stdout


def environment_with(packages: tuple[str, ...], folder: Path) -> Path:
    """Make an environment with these packages and their requirements, by links to the installed ones."""
    venv.create(folder, symlinks=True)
    target = next(folder.glob("lib/python*/site-packages"))
    waiting, seen = list(packages), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # a requirement of another system
            continue
        waiting += [re.split(r"[^\w.-]", line)[0] for line in found.requires or [] if "extra ==" not in line]
        for entry in {file.parts[0] for file in found.files or [] if ".." not in file.parts}:
            if not (target / entry).exists():
                (target / entry).symlink_to(Path(found.locate_file(entry)))
    return folder / "bin" / "python"
