"""Titles before any training: a pretrained model writes them until a version is registered."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pandas as pd
import pytest

from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.errors import Rejected
from pipeline.monitoring.batch_log import BATCHES
from pipeline.settings import set_params
from pipeline.titles.batch_titling import title_texts
from pipeline.titles.passage import title_passage
from pipeline.titles.served_version import find_served_version, load_version
from pipeline.titles.title_chapters import chapters_with_titles, find_version
from pipeline.transcripts.transcript import Line, Topic, Transcript
from tests.registry.small import save_small_model
from tests.titles.small import register

TALK = Transcript(
    "Course", "1", [Line(0.0, "why gradients matter"), Line(60.0, "why graphs matter")], 90.0, [Topic(0, "")]
)


@pytest.fixture
def project_without_training(project: Path, examples: pd.DataFrame) -> Path:
    """A project whose pretrained model is a small one."""
    save_small_model(project / "small", examples)
    entry = {"family": "t5", "checkpoint": "small", "max_source_tokens": 48, "max_target_tokens": 12}
    set_params(["models"], {"small": entry})
    set_params(["register"], {"pretrained": "small"})
    (project / "mlflow.db").unlink()
    load_version.cache_clear()
    return project


def test_chapters_are_titled_before_any_training(
    project_without_training: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            (lesson,), _ = chapters_with_titles([TALK], ChaptersSettings.read(), None, find_version([TALK]))
    assert [bool(chapter.title) for chapter in lesson.chapters] == [True]
    (said,) = [record.getMessage() for record in caplog.records if "pretrained" in record.getMessage()]
    assert "No version is registered yet" in said
    assert "lectern use WORKBOOK" in said
    assert not Path("mlflow.db").exists()
    assert not list(BATCHES.glob("*")), "drift compares with a training split, which the pretrained model has not"


def test_a_passage_gets_as_many_candidates_as_asked_for(project_without_training: Path) -> None:
    found = title_passage("why gradients matter", find_served_version(), {"candidates": 3, "num_beams": 3})
    assert 1 <= len(found) <= 3


def test_a_registered_version_takes_the_place_of_the_pretrained_model(
    project_without_training: Path, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = find_served_version()
    register(project_without_training / "trained", examples)
    after = find_served_version()
    assert (str(before), str(after)) == ("pretrained/small", "lectern/1")
    assert before.identity != after.identity
    assert title_texts(["why graphs matter"], after).shown
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{os.environ['MLFLOW_TRACKING_URI']}?timeout=30")
    assert str(find_served_version()) == "lectern/1", "the address has options after the file's name"


def test_another_pretrained_model_has_another_identity(project_without_training: Path) -> None:
    before = find_served_version()
    set_params(["models", "small"], {"max_source_tokens": 32})
    assert find_served_version().identity != before.identity


def test_without_a_pretrained_model_a_version_must_be_registered(project_without_training: Path) -> None:
    set_params(["register"], {"pretrained": None})
    with pytest.raises(Rejected, match="No version of 'lectern' is registered"):
        find_served_version()
