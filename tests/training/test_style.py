"""What a model learns of its course besides weights: the real stages, one after the other."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.command import lectern
from tests.training.small import STAGE, environment, fill_project


def test_a_trained_model_calls_an_opening_as_most_of_its_lessons_do(project: Path, examples: pd.DataFrame) -> None:
    lessons = examples.assign(lesson_num=[str(place // 2) for place in range(len(examples))])
    lessons["opens"] = ~lessons.duplicated("lesson_num")
    lessons.loc[lessons["opens"], "title"] = ["Intro"] * 6 + ["Welcome"] * 2
    fill_project(project, lessons, epochs=1)
    for words in (STAGE, ("predict", STAGE[1]), ("score", STAGE[1])):
        done = lectern(*words, cwd=project, env=environment())
        assert done.returncode == 0, done.stderr
    titled = pd.read_parquet(project / f"reports/predictions/{STAGE[1]}.parquet").query("split == 'test'")
    assert (titled["prediction"] == "Intro").tolist() == lessons["opens"].tolist()
