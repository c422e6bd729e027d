"""Killed anywhere, and started again: it ends, and with what an undisturbed run gives.

`LECTERN_KILLS` says how often a part kills, and `LECTERN_SEED` draws the same moments again.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from pipeline.registry.promotion import champions, trail
from tests.conftest import SUBJECTS
from tests.flows.promotable import NAME, register, write_splits
from tests.hard.killing import DVC, RUN, Killing, made, require_whole, undo
from tests.training.small import environment as with_our_code
from tests.whole_project import make_project

KILLS = int(os.environ.get("LECTERN_KILLS", "18"))
SEED = int(os.environ.get("LECTERN_SEED", random.SystemRandom().randrange(10_000)))

WORKBOOK = "workbook"
FASTEST_STAGES = f"""
stages:
  ingest:
    cmd: python -m pipeline ingest
    deps: [{WORKBOOK}]
    params: [ingest]
    outs: [data/interim/topics.parquet, data/interim/lines.parquet, data/interim/broken_rows.parquet]
  merge:
    cmd: python -m pipeline merge
    deps: [data/interim/topics.parquet, data/interim/lines.parquet, data/interim/broken_rows.parquet]
    outs: [data/examples/examples.parquet, data/examples/set_aside.csv]
"""


@pytest.fixture
def rng() -> random.Random:
    print(f"LECTERN_SEED={SEED}")  # pytest shows it where the test fails
    return random.Random(SEED)


def _workbook(folder: Path) -> None:
    folder.mkdir()
    lesson = {"course_title": "Course", "lesson_num": "1"}
    spoken = [(timedelta(minutes=minute), name) for minute, name in enumerate(SUBJECTS)]
    topics = [{**lesson, "timestamp": time, "topic": f"Why {name} matter"} for time, name in spoken]
    lines = [{**lesson, "timestamp": time, "transcript": f"now {name}"} for time, name in spoken]
    pd.DataFrame(topics).to_parquet(folder / "lesson_topics.parquet")
    pd.DataFrame(lines).to_parquet(folder / "lesson_transcripts.parquet")


def test_the_fastest_stages_killed_thrice_give_what_they_give_undisturbed(tmp_path: Path, rng: random.Random) -> None:
    folder = tmp_path / "project"
    make_project(folder, ["t5-tiny"])
    _workbook(folder / WORKBOOK)
    (folder / "dvc.yaml").write_text(FASTEST_STAGES, encoding="utf-8")
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["ingest"]["workbook"] = WORKBOOK
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    killing = Killing(folder, rng, longest=2)
    killing.let_end(DVC)
    parts = ("data/interim", "data/examples")
    expected = made(folder, parts)
    undo(folder, with_memory=False)
    killing.until_it_ends(DVC, kills=3)
    assert made(folder, parts) == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    """A project in which everything has run once, undisturbed, and what that has given."""
    folder = tmp_path_factory.mktemp("killed") / "project"
    make_project(folder, ["bart-tiny"])
    Killing(folder, random.Random(0), longest=0).let_end(DVC)
    return folder, made(folder)


PARTS = {"dvc repro": (DVC, KILLS, 4), "lectern run": (RUN, KILLS // 2, 2)}
"""What is killed, how often, and in how many parts: so many, that one sees how far the tests are."""


@pytest.mark.hard
@pytest.mark.parametrize(
    ("words", "kills", "part"),
    [
        pytest.param(words, kills, part, id=f"{name}, part {part + 1} of {parts}")
        for name, (words, kills, parts) in PARTS.items()
        for part in range(parts)
    ],
)
def test_a_run_killed_anywhere_gives_what_an_undisturbed_one_gives(
    words: tuple[str, ...], kills: int, part: int, whole: tuple[Path, Mapping[str, Any]]
) -> None:
    folder, expected = whole
    print(f"LECTERN_SEED={SEED}")  # pytest shows it where the test fails
    rng = random.Random(SEED + part)
    undo(folder, with_memory=True)
    killing = Killing(folder, rng, longest=10)
    while kills > 0:
        kills -= killing.until_it_ends(words, kills=kills)
        require_whole(folder, expected)
        # As if another commit had been checked out; MLflow still knows of the work, or not.
        undo(folder, with_memory=rng.random() < 0.5)
    print(killing.tally)


PROMOTIONS = 5
"""How often a promotion is killed, and how often a rollback: once in each part of its length."""

PROMOTION = (sys.executable, "-m", "lectern", "promote", "--force", "--because", "a rehearsal")
ROLLBACK = (sys.executable, "-m", "lectern", "rollback")


class Moving(NamedTuple):
    """A command that moves the champion, what it says where that is done already, and the champions after it."""

    words: tuple[str, ...]
    already: str
    line: tuple[str, ...]


@pytest.mark.hard
def test_a_promotion_and_a_rollback_killed_anywhere_end_with_one_champion(
    project: Path, examples: pd.DataFrame, rng: random.Random
) -> None:
    write_splits(examples)
    for known in (SUBJECTS, SUBJECTS[:4]):
        register(known)
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    killing = Killing(project, rng, longest=0, env=with_our_code())
    killing.let_end((*PROMOTION, "1"))
    moves = (
        Moving((*PROMOTION, "2"), "is already the champion", ("1", "2")),
        Moving(ROLLBACK, "has no earlier champion to roll back to", ("1",)),
    )
    lengths = {move: _seconds(killing, move) for move in moves}
    kills: Counter[Moving] = Counter()
    for part in range(PROMOTIONS):
        for move, length in lengths.items():
            killing.already = move.already
            seconds = length * rng.uniform(part, part + 1) / PROMOTIONS
            killed = killing.kill_after(move.words, seconds) is not None
            kills[move] += killed
            print(
                f"{move.words[3]}: {seconds:.1f} of {length:.1f} s, killed: {killed}, {_champion(client)}", flush=True
            )
            killing.let_end(move.words)
            assert _champion(client) == move.line[-1]
            assert champions(trail(client, NAME)) == [*move.line]
    # On a machine that has become quicker since it was measured, the last ones come too late.
    assert min(kills[move] for move in moves) >= PROMOTIONS // 2


def _seconds(killing: Killing, move: Moving) -> float:
    begun = time.monotonic()
    killing.let_end(move.words)
    return time.monotonic() - begun


def _champion(client: MlflowClient) -> str:
    return str(client.get_registered_model(NAME).aliases["champion"])
