"""Titles by models other than the served version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from pipeline.titles.other_models import list_models, titles_by
from tests.titles.small import register


def test_a_model_that_writes_nothing_has_no_titles(project: Path, examples: pd.DataFrame) -> None:
    register(project / "mute", examples, mute=True)
    shutil.copytree(project / "mute", project / "models/mute")
    version, trained, *baselines = list_models()
    texts = ["so the telescope shows distant galaxies and stars", "knead the dough with flour and water"]
    assert [titles_by(model, texts) for model in (version, trained)] == [["", ""], ["", ""]]
    assert all(titles_by("baseline: keyphrase", texts)), baselines
