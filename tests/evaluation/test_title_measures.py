"""Repeats within a lesson, and the support of titles in their texts."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from snowballstemmer import stemmer

from pipeline.evaluation.title_measures import measure_models, measure_titles
from pipeline.evaluation.title_words import stems

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


def test_words_have_the_same_stems_when_a_server_compares_titles_in_several_threads() -> None:
    words = [f"{start}{end}" for start in map("{:b}".format, range(500)) for end in ("izations", "fulness", "ingly")]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(stems, words))
    finally:
        sys.setswitchinterval(before)
    assert found == [[stemmer("english").stemWord(word)] for word in words]
