"""A model learns the title that its course gives openings. Runs the real stages."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.command import lectern
from tests.training.small import STAGE, environment, fill_project


@pytest.mark.slow
def test_an_opening_gets_the_title_that_most_lessons_give_it(project: Path, examples: pd.DataFrame) -> None:
    lessons = examples.assign(lesson_num=[str(place // 2) for place in range(len(examples))])
    lessons["opens"] = ~lessons.duplicated("lesson_num")
    lessons.loc[lessons["opens"], "title"] = ["Intro"] * 6 + ["Welcome"] * 2
    fill_project(project, lessons, epochs=1)
    for words in (STAGE, ("predict", STAGE[1]), ("score", STAGE[1])):
        done = lectern(*words, cwd=project, env=environment())
        assert done.returncode == 0, done.stderr
    titled = pd.read_parquet(project / f"reports/predictions/{STAGE[1]}.parquet").query("split == 'test'")
    assert (titled["prediction"] == "Intro").tolist() == lessons["opens"].tolist()
