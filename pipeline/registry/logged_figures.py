"""The report's figures, in MLflow too."""

from __future__ import annotations

from mlflow import MlflowClient

from pipeline.evaluation.figures import curves_figure, score_figure
from pipeline.evaluation.leaderboard import Leaderboard
from pipeline.evaluation.leaderboard_text import as_markdown
from pipeline.registry.tracking import find_run
from pipeline.training.record import Training


def log_figures(client: MlflowClient, training: Training, leaderboard: Leaderboard) -> None:
    """A training's curves, and the leaderboard it stood on, into its run; into none where that is unknown here."""
    run_id = training.run.run_id
    if find_run(client, run_id) is None:
        return
    if not training.curves.empty:
        client.log_figure(run_id, curves_figure(training.curves, training.run.bertscore), "curves.png")
    client.log_figure(run_id, score_figure(leaderboard), "leaderboard.png")
    client.log_text(run_id, as_markdown(leaderboard), "leaderboard.md")
