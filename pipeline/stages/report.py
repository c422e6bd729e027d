"""The stage `report`: the leaderboard as a table and the report that explains it, with the joint scores."""

from __future__ import annotations

import pandas as pd

from pipeline.chapters.boundary_board import read_board
from pipeline.evaluation.costs import costs_of
from pipeline.evaluation.joint_board import read_joint_board
from pipeline.evaluation.leaderboard import read_leaderboard
from pipeline.evaluation.leaderboard_text import as_markdown
from pipeline.evaluation.report import render_report
from pipeline.evaluation.results import read_results
from pipeline.files import write_text
from pipeline.paths import LEADERBOARD_MD, REPORT, TEST
from pipeline.training.record import read_training


def run() -> None:
    """Write the leaderboard and the report for people."""
    leaderboard, joint = read_leaderboard(), read_joint_board()
    results = {row.model: read_results(row.model) for row in leaderboard.rows}
    metrics = {model: measured for model, (measured, _) in results.items()}
    predictions = {model: scored for model, (_, scored) in results.items()}
    training = {row.model: read_training(row.model) for row in leaderboard.rows if not row.is_baseline}
    costs = costs_of(metrics, {model: trained.run for model, trained in training.items()})
    report = render_report(
        leaderboard, metrics, predictions, pd.read_parquet(TEST), training, costs, read_board(), joint
    )
    write_text(LEADERBOARD_MD, as_markdown(leaderboard, costs, joint), durable=False)
    write_text(REPORT, report, durable=False)
    print(as_markdown(leaderboard, costs, joint))
