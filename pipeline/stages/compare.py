"""The leaderboard, and the report that explains it."""

from __future__ import annotations

import pandas as pd

from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.leaderboard import CompareSettings, as_markdown, build_leaderboard, read_contestants
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predictions import read_results
from pipeline.evaluation.report import render_report
from pipeline.files import write_json, write_text
from pipeline.paths import LEADERBOARD, LEADERBOARD_MD, REPORT, SPLITS
from pipeline.training.record import read_training


def run() -> None:
    settings, evaluation, contestants = CompareSettings.read(), EvaluateSettings.read(), read_contestants()
    results = {model: read_results(model) for model in [*BASELINES, *contestants]}
    metrics = {model: measured for model, (measured, _) in results.items()}
    predictions = {model: scored for model, (_, scored) in results.items()}
    training = {model: read_training(model) for model in contestants}
    leaderboard = build_leaderboard(
        contestants,
        list(BASELINES),
        metrics,
        predictions,
        settings,
        evaluation=evaluation,
        parameters={model: trained.run.parameters for model, trained in training.items()},
    )
    test = pd.read_parquet(SPLITS / "test.parquet")
    report = render_report(leaderboard, metrics, predictions, test, training)
    write_json(LEADERBOARD, leaderboard.model_dump(mode="json"))
    write_text(LEADERBOARD_MD, as_markdown(leaderboard))
    write_text(REPORT, report)
    print(as_markdown(leaderboard))
