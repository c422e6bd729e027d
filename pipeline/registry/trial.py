"""A version tried as it will be served: loaded by MLflow in a process of its own, and asked for titles."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mlflow

from pipeline.errors import Refused

_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    titles: list[str]  # one a text, as the model wrote it: what stands in for a title is not the model's merit
    seconds_a_title: float  # of this machine, the model loaded
    megabytes: float  # that its files take


def try_version(name: str, number: str, texts: list[str]) -> Trial:
    """The titles that version `number` of `name` gives to `texts`.

    Raises:
        Refused: it does not load, or fails on a text.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.registry.trial", f"models:/{name}/{number}"],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise Refused(f"Version {number} of '{name}' does not work as it would be served: {last[0]}")
    return Trial(**json.loads(done.stdout.splitlines()[-1]))


def _answer(uri: str, texts: list[str]) -> Trial:
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    model = mlflow.pyfunc.load_model(str(folder))
    start = time.monotonic()
    titles = [candidates[0] for candidates in model.predict(texts)["candidates"]]
    seconds = time.monotonic() - start
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Trial(titles, round(seconds / max(1, len(texts)), 3), round(size / _MEGABYTE, 1))


if __name__ == "__main__":
    print(json.dumps(asdict(_answer(sys.argv[1], json.load(sys.stdin)))))
