"""`register`: the best model of the leaderboard as a new version, the challenger."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pipeline.evaluation.leaderboard import read_leaderboard
from pipeline.files import write_json
from pipeline.models.generation import GenerateSettings
from pipeline.paths import LEADERBOARD, MODELS, REGISTERED
from pipeline.registry.figures import log_figures
from pipeline.registry.lineage import md5
from pipeline.registry.tracking import connect
from pipeline.registry.versions import Registered, RegisterSettings, register
from pipeline.training.record import read_training


def run() -> None:
    settings = RegisterSettings.read()
    leaderboard = read_leaderboard(LEADERBOARD)
    best = leaderboard.row(leaderboard.best)
    training = read_training(best.model)
    client, run_id, model_md5 = connect(), training.run.run_id, md5(MODELS / best.model)
    tags = {
        "model": best.model,
        "model.md5": model_md5,
        "model.code": md5(Path("pipeline/models")),
        "beats_baselines": str(leaderboard.best_beats_baselines).lower(),
        **{f"validation.{name}": f"{value:.4f}" for name, value in best.validation.items()},
        **{f"test.{name}": f"{value:.4f}" for name, value in best.test.items()},
        **training.run.lineage,
    }
    generate = GenerateSettings.read(best.model)
    version = register(client, settings.name, MODELS / best.model, generate, run_id=run_id, tags=tags)
    for row in leaderboard.rows:
        if not row.is_baseline:
            log_figures(client, read_training(row.model), leaderboard)
    write_json(REGISTERED, asdict(Registered(settings.name, int(version.version), best.model, model_md5, run_id)))
    print(f"{best.model} is version {version.version} of '{settings.name}', the challenger")
