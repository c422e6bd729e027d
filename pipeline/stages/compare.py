"""The stage `compare`: the leaderboard, the report that explains it, and a copy of the best model."""

from __future__ import annotations

import json
import shutil

import pandas as pd

from pipeline.chapters.boundary_board import read_board
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.costs import costs_of
from pipeline.evaluation.leaderboard import CompareSettings, build_leaderboard
from pipeline.evaluation.leaderboard_text import as_markdown
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.report import render_report
from pipeline.evaluation.results import read_results
from pipeline.evaluation.title_measures import measure_models
from pipeline.files import folder_aside, write_json, write_text
from pipeline.paths import (
    BEST_MODEL,
    BOUNDARIES,
    COLLECTED,
    LEADERBOARD,
    LEADERBOARD_MD,
    MODELS,
    REPORT,
    SEGMENTER,
    SPLITS,
)
from pipeline.training.record import read_training


def run() -> None:
    """Compare all models and write the leaderboard, the report and the best model."""
    settings, evaluation = CompareSettings.read(), EvaluateSettings.read()
    contestants = list(json.loads(COLLECTED.read_text(encoding="utf-8")))
    results = {model: read_results(model) for model in [*BASELINES, *contestants]}
    metrics = {model: measured for model, (measured, _) in results.items()}
    predictions = {model: scored for model, (_, scored) in results.items()}
    training = {model: read_training(model) for model in contestants}
    test = pd.read_parquet(SPLITS / "test.parquet")
    titles, true_titles = measure_models(predictions, test)
    leaderboard = build_leaderboard(
        contestants,
        list(BASELINES),
        metrics,
        predictions,
        settings,
        evaluation=evaluation,
        training={model: trained.run for model, trained in training.items()},
        titles=titles,
        true_titles=true_titles,
    )
    costs = costs_of(metrics, {model: trained.run for model, trained in training.items()})
    report = render_report(leaderboard, metrics, predictions, test, training, costs, read_board(BOUNDARIES))
    write_json(LEADERBOARD, leaderboard.model_dump(mode="json"), durable=False)
    write_text(LEADERBOARD_MD, as_markdown(leaderboard, costs), durable=False)
    write_text(REPORT, report, durable=False)
    with folder_aside(BEST_MODEL, durable=False) as folder:
        shutil.copytree(MODELS / leaderboard.best, folder, dirs_exist_ok=True)
        shutil.copytree(SEGMENTER, folder / SEGMENTER.name)
    print(as_markdown(leaderboard, costs))
