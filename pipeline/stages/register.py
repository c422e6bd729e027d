"""The stage `register`: the best model of the leaderboard as a new version, the challenger, with its model card.

A DVC experiment registers nothing and only names the model.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.chapters.boundary_board import BoundaryBoard, read_board
from pipeline.data.split import Splits
from pipeline.evaluation.costs import read_costs
from pipeline.evaluation.figures import curves_figure, score_figure
from pipeline.evaluation.joint_board import JointBoard, read_joint_board
from pipeline.evaluation.leaderboard import Leaderboard, read_leaderboard
from pipeline.evaluation.leaderboard_text import as_markdown
from pipeline.evaluation.results import read_results
from pipeline.experiments import experiment
from pipeline.files import write_json
from pipeline.models.checkpoints import Card
from pipeline.models.generation import GenerateSettings
from pipeline.models.seen_examples import count_seen
from pipeline.paths import LEADERBOARD, MODELS, REGISTERED, SEGMENTER, SPLITS
from pipeline.registry.lineage import md5, title_code_hashes
from pipeline.registry.model_card import Facts, keep_card, write_card
from pipeline.registry.register_settings import RegisterSettings
from pipeline.registry.registration import Registered, register
from pipeline.registry.tracking import connect, find_run, has_evaluation, log_evaluation
from pipeline.training.record import Training, read_training


def run() -> None:
    """Make the best model of the leaderboard the challenger; register it first if it is not a version yet."""
    settings = RegisterSettings.read()
    leaderboard = read_leaderboard(LEADERBOARD)
    if name := experiment():
        write_json(REGISTERED, {"experiment": name, "model": leaderboard.best})
        print(
            f"{leaderboard.best} is the best model of experiment '{name}'. Experiments register nothing. To register "
            f"it, run: dvc exp apply {name} && lectern run"
        )
        return
    board, joint = read_board(), read_joint_board()
    best = leaderboard.row(leaderboard.best)
    training = read_training(best.model)
    client, run_id, model_md5 = connect(), training.run.run_id, md5(MODELS / best.model)
    tags = {
        "model": best.model,
        "model.md5": model_md5,
        "segmenter": board.method,
        "segmenter.md5": md5(SEGMENTER),
        "segmenter.run": board.run_id,
        **{f"boundaries.test.{name}": f"{score.mean:.4f}" for name, score in board.in_use.test.items()},
        **({"joint.test.soda_c": f"{joint.rows[0].score.mean:.4f}"} if joint.rows else {}),
        "model.code": " ".join(title_code_hashes(Path("pipeline"))),
        "beats_baselines": str(leaderboard.best_beats_baselines).lower(),
        **{f"validation.{name}": f"{value:.4f}" for name, value in best.validation.items()},
        **{f"test.{name}": f"{interval.mean:.4f}" for name, interval in best.test.items()},
        **training.run.lineage,
    }
    generate = GenerateSettings.read(best.model)
    version = register(
        client, settings.name, MODELS / best.model, generate, run_id=run_id, tags=tags, segmenter=SEGMENTER
    )
    facts = _facts(client, version, tags, leaderboard, board, joint, generate)
    keep_card(client, version, best.model, write_card(facts))
    for row in leaderboard.rows:
        if not row.is_baseline:
            trained = read_training(row.model)
            _log_missing_scores(client, row.model, trained.run.run_id)
            _log_figures(client, trained, leaderboard, joint)
    write_json(REGISTERED, asdict(Registered(settings.name, int(version.version), best.model, model_md5, run_id)))
    print(f"{best.model} is version {version.version} of '{settings.name}', the challenger")


def _log_missing_scores(client: MlflowClient, model: str, run_id: str) -> None:
    """Log scores to the run of a training that repeated an earlier result: DVC does not score the same model again."""
    run = find_run(client, run_id)
    if run and not has_evaluation(run):
        log_evaluation(client, run_id, *read_results(model))


def _log_figures(client: MlflowClient, training: Training, leaderboard: Leaderboard, joint: JointBoard) -> None:
    """Log the training's curves and the leaderboard to the run of the training, if this tracking server knows it."""
    run_id = training.run.run_id
    if find_run(client, run_id) is None:
        return
    if not training.curves.empty:
        client.log_figure(run_id, curves_figure(training.curves, training.run.bertscore), "curves.png")
    client.log_figure(run_id, score_figure(leaderboard), "leaderboard.png")
    client.log_text(run_id, as_markdown(leaderboard, read_costs(leaderboard), joint), "leaderboard.md")


def _facts(
    client: MlflowClient,
    version: ModelVersion,
    tags: dict[str, str],
    leaderboard: Leaderboard,
    board: BoundaryBoard,
    joint: JointBoard,
    generate: GenerateSettings,
) -> Facts:
    best = leaderboard.best
    known = find_run(client, version.run_id)
    splits = {split: pd.read_parquet(SPLITS / f"{split}.parquet") for split in Splits.names()}
    return Facts(
        name=version.name,
        number=str(version.version),
        tags=tags,
        # Without the settings of generation, which MLflow stores as GROUP/NAME.
        settings={name: value for name, value in known.data.params.items() if "/" not in name} if known else {},
        folder=Card.model_validate_json((MODELS / best / "lectern.json").read_text(encoding="utf-8")),
        generate=generate,
        training=read_training(best).run,
        leaderboard=leaderboard,
        boundaries=board,
        joint=joint,
        splits=splits,
        seen=count_seen(MODELS / best, "test", splits["test"]),
        scored=read_results(best)[1],
    )
