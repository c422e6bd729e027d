"""The same work, done twice on one machine, and with another number of threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.numpy import load_file

from tests.hard.killing import DVC, Killing, made
from tests.whole_project import environment, make_project

pytestmark = pytest.mark.hard

TOLERANCE = 1e-6
"""By which weights and scores may differ with the number of threads, which decides in what order sums are added up."""


def _done(folder: Path, threads: int) -> Path:
    make_project(folder, ["bart-tiny"])
    env = environment(OMP_NUM_THREADS=str(threads))
    Killing(folder, random.Random(0), longest=0, env=env).let_end(DVC)
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _done(tmp_path_factory.mktemp("once") / "project", threads=1)


def test_two_clean_runs_give_the_same_bytes_up_to_the_models_and_the_same_leaderboard(
    once: Path, tmp_path: Path
) -> None:
    assert made(_done(tmp_path / "another place", threads=1)) == made(once)


def test_another_number_of_threads_gives_the_same_titles_and_scores_that_differ_by_next_to_nothing(
    once: Path, tmp_path: Path
) -> None:
    other = _done(tmp_path / "project", threads=2)
    for part in ("data/interim", "data/examples", "data/splits", "reports/validation.json"):
        assert made(other, (part,))[part] == made(once, (part,))[part]
    ours, theirs = (load_file(folder / "models/bart-tiny/model.safetensors") for folder in (once, other))
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[name] - theirs[name]).max() for name in ours) < TOLERANCE
    titles, others = (pd.read_parquet(folder / "reports/predictions/bart-tiny.parquet") for folder in (once, other))
    assert titles["prediction"].equals(others["prediction"])
    for one, another in zip(_numbers(made(once)), _numbers(made(other)), strict=True):
        assert abs(one - another) < TOLERANCE


def _numbers(found: Any) -> Iterator[float]:
    match found:
        case dict():
            for each in found.values():
                yield from _numbers(each)
        case list():
            for each in found:
                yield from _numbers(each)
        case int() | float():
            yield float(found)
