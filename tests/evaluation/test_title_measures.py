"""Repeats within a lesson, and the support of titles in their texts."""

from __future__ import annotations

import pandas as pd

from pipeline.evaluation.title_measures import measure_models, measure_titles

TEST = pd.DataFrame(
    [
        ("C", "1", 0.0, "Intro", "so we begin with the network", True),
        ("C", "1", 60.0, "Training networks", "so we train the network", False),
        ("C", "1", 90.0, "Network training (NT)", "so the rocket flies", False),
        ("C", "2", 0.0, "Networks", "so the network learns", False),
    ],
    columns=["course_title", "lesson_num", "start_seconds", "title", "text", "opens"],
)


def test_repeats_count_within_a_lesson_and_openings_need_no_support() -> None:
    measured = measure_titles(TEST.assign(title=["Network", "Training networks", "training network (TN)", "Network"]))
    assert (measured.repeats, measured.support) == (0.5, (1 + 0 + 1) / 3)


def test_models_are_measured_beside_the_true_titles() -> None:
    scored = TEST.drop(columns=["text", "opens"]).assign(split="test", prediction=["", "", "Rockets", "Stars"])
    models, true = measure_models({"model": scored[::-1]}, TEST)
    assert (models["model"].repeats, models["model"].support) == (0.0, 1 / 3)
    assert (true.repeats, true.support) == (0.0, 2 / 3)
