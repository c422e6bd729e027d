"""Kills commands in a project at random moments, and starts them again, until they end by themselves.

`python -m tests.hard.killing FOLDER --kills 20 --seed 7` does it by hand, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import RunStatus

from pipeline.registry.lineage import md5
from tests.command import processes_in
from tests.whole_project import environment, make_project

DVC = (sys.executable, "-m", "dvc", "repro")
RUN = (sys.executable, "-m", "lectern", "run")

MADE = ("dvc.lock", "data", "settings", "models", "best_model", "segmenter", "reports", ".dvc/cache")
"""What the stages make, and DVC keeps of it."""

KEPT = (
    "data/interim", "data/examples", "data/splits", "settings", "models", "reports/predictions",
    "reports/validation.json",
)  # fmt: skip
"""What the same work gives again, to the byte."""

BETWEEN = "between stages"
CUT_OFF = "DVC's note of who reads what"

GONE_WITHIN = 30.0
"""Seconds after a kill within which nothing of it runs any more: the keepers' grace, and some for a busy machine."""


@dataclass
class Killing:
    """Kills in one project, drawn from one seed."""

    folder: Path
    rng: random.Random
    longest: float
    """Seconds within which a stage is killed, from when it began; by then it may have ended."""
    env: Mapping[str, str] = field(default_factory=environment)
    already: str = "nothing says that all is done already"
    """What a command says, and fails, because all of it was done before it was killed."""
    tally: Counter[str] = field(default_factory=Counter)
    """How many kills fell into each stage, and between them."""

    def until_it_ends(self, words: Sequence[str], *, kills: int) -> int:
        """Starts `words`, kills it, and again, at most `kills` times; then lets it end. Returns how often it killed.

        It may also end before it is killed.
        """
        for done in range(kills):
            if (at := self.kill_once(words)) is None:
                return done
            self.tally[at] += 1
            print(f"killed in {at} ({sum(self.tally.values())})", flush=True)
        self.let_end(words)
        return kills

    def kill_once(self, words: Sequence[str]) -> str | None:
        """`kill_after`, at some moment."""
        return self.kill_after(words, self.rng.uniform(0, self.longest), stage=self.rng.choice((0, 1, 1, 1, 2, 2)))

    def kill_after(self, words: Sequence[str], seconds: float, *, stage: int = 0) -> str | None:
        """Kills the whole process group of `words` so long after its stage of that number began, or it itself.

        Returns what was at work; None if it ended before.

        Raises:
            AssertionError: it failed by itself, or something of it outlived the kill.
        """
        with self._started(words) as (process, log):
            if self._has_ended_before(process, stage, seconds):
                if self._mended(words, log):
                    return CUT_OFF
                self._must_have_ended_well(words, process.returncode, log)
                return None
            at = _at_work(self.folder)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.nothing_runs()
        return at

    def _has_ended_before(self, process: subprocess.Popen[bytes], stage: int, seconds: float) -> bool:
        """Waits so long from when its stage of that number began, from its own beginning where that is 0."""
        begun: set[str] = set()
        while process.poll() is None and len(begun) < stage:
            begun |= {_at_work(self.folder)} - {BETWEEN}
            time.sleep(0.1)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.returncode is not None

    def let_end(self, words: Sequence[str]) -> str:
        """Runs `words` to its end, and returns what it said."""
        with self._started(words) as (process, log):
            code = process.wait()
            if not self._mended(words, log):
                self._must_have_ended_well(words, code, log)
                return log.read_text(encoding="utf-8")
        return self.let_end(words)

    def _mended(self, words: Sequence[str], log: Path) -> bool:
        """Whether `dvc repro` met a note of its own that was cut off, which docs/operations.md says to remove."""
        if tuple(words) != DVC or "Unable to read RWLock-file" not in log.read_text(encoding="utf-8"):
            return False
        (self.folder / ".dvc/tmp/rwlock").unlink()
        return True

    def _must_have_ended_well(self, words: Sequence[str], code: int, log: Path) -> None:
        said = log.read_text(encoding="utf-8")
        assert code == 0 or self.already in said, f"{words} ended with {code}:\n{said}"

    def nothing_runs(self) -> None:
        deadline = time.monotonic() + GONE_WITHIN
        while left := processes_in(self.folder):
            assert time.monotonic() < deadline, f"these outlived the kill: {left}"
            time.sleep(0.1)

    @contextmanager
    def _started(self, words: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        log = self.folder.with_suffix(".log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, cwd=self.folder, env=self.env, stdout=out, stderr=out, start_new_session=True
            )
        try:
            yield process, log
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _at_work(folder: Path) -> str:
    for line in processes_in(folder):
        _, found, words = line.partition("-m pipeline ")
        if found and words != "run":
            return words.replace(" ", "@", 1)
    return BETWEEN


def undo(folder: Path, *, with_memory: bool) -> None:
    """Takes back all that the stages made, and with `with_memory` what MLflow knows of it too."""
    for name in (*MADE, *(("mlflow.db", "mlartifacts", ".lectern") if with_memory else ())):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def made(folder: Path, parts: Sequence[str] = KEPT) -> dict[str, Any]:
    """What the work has given: hashes, and the leaderboard if there is one."""
    leaderboard = folder / "reports/leaderboard.json"
    rows = json.loads(leaderboard.read_text(encoding="utf-8")) if leaderboard.exists() else None
    return {**{name: md5(folder / name) for name in parts}, "leaderboard": rows}


def require_whole(folder: Path, expected: Mapping[str, Any]) -> None:
    """All is there and as it would be had nothing been killed; and nothing says that something still runs.

    Raises:
        AssertionError: it is not.
    """
    assert made(folder) == expected
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert [version.version for version in client.search_model_versions("name = 'lectern'")] in ([1], ["1"])
    statuses = [run.info.status for run in runs(client)]
    assert RunStatus.to_string(RunStatus.RUNNING) not in statuses, statuses
    assert not [*folder.glob(".lectern/checkpoints/*")]
    assert not [*folder.glob(".lectern/running/*")]


def runs(client: MlflowClient) -> list[Any]:
    return client.search_runs([client.get_experiment_by_name("lectern").experiment_id])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--longest", type=float, default=10)
    parser.add_argument("--run", action="store_true", help="kill `lectern run`, not `dvc repro`")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    folder = given.folder.resolve()
    reference = folder.with_suffix(".json")
    if not folder.exists():
        make_project(folder, ["bart-tiny"])
    killing = Killing(folder, random.Random(given.seed), given.longest)
    words = RUN if given.run else DVC
    if not reference.exists():
        begun = time.monotonic()
        killing.let_end(words)
        print(f"undisturbed it takes {time.monotonic() - begun:.0f} s", flush=True)
        reference.write_text(json.dumps(made(folder)), encoding="utf-8")
        undo(folder, with_memory=True)
    expected = json.loads(reference.read_text(encoding="utf-8"))
    done = 0
    while done < given.kills:
        killed = killing.until_it_ends(words, kills=given.kills - done)
        done += killed
        if done < given.kills or killed:
            require_whole(folder, expected)
            print(f"whole after {done}", flush=True)
            undo(folder, with_memory=killing.rng.random() < 0.5)
    print(dict(killing.tally.most_common()))


if __name__ == "__main__":
    main()
