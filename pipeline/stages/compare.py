"""The stage `compare`: the leaderboard, and a copy of the best model."""

from __future__ import annotations

import json
import shutil

import pandas as pd

from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.leaderboard import CompareSettings, build_leaderboard
from pipeline.evaluation.leaderboard_text import headline
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.results import read_results
from pipeline.evaluation.title_measures import measure_models
from pipeline.files import folder_aside, write_json
from pipeline.paths import BEST_MODEL, COLLECTED, LEADERBOARD, MODELS, SEGMENTER, TEST
from pipeline.training.record import read_training


def run() -> None:
    """Compare all models and write the leaderboard and the best model."""
    settings, evaluation = CompareSettings.read(), EvaluateSettings.read()
    contestants = list(json.loads(COLLECTED.read_text(encoding="utf-8")))
    results = {model: read_results(model) for model in [*BASELINES, *contestants]}
    metrics = {model: measured for model, (measured, _) in results.items()}
    predictions = {model: scored for model, (_, scored) in results.items()}
    titles, true_titles = measure_models(predictions, pd.read_parquet(TEST))
    leaderboard = build_leaderboard(
        contestants,
        list(BASELINES),
        metrics,
        predictions,
        settings,
        evaluation=evaluation,
        training={model: read_training(model).run for model in contestants},
        titles=titles,
        true_titles=true_titles,
    )
    write_json(LEADERBOARD, leaderboard.model_dump(mode="json"), durable=False)
    with folder_aside(BEST_MODEL, durable=False) as folder:
        shutil.copytree(MODELS / leaderboard.best, folder, dirs_exist_ok=True)
        shutil.copytree(SEGMENTER, folder / SEGMENTER.name)
    print(headline(leaderboard))
