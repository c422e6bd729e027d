"""`register`: the best model of the leaderboard as a new version, the challenger."""

from __future__ import annotations

import json
from dataclasses import asdict

from mlflow.entities import Run

from pipeline.evaluation.leaderboard import read_leaderboard
from pipeline.files import write_json
from pipeline.models.generation import GenerateSettings
from pipeline.paths import LEADERBOARD, MODELS, REGISTERED, TRAINING
from pipeline.registry.lineage import is_lineage, lineage_tags, md5
from pipeline.registry.tracking import connect, find_run
from pipeline.registry.versions import Registered, RegisterSettings, register


def run() -> None:
    settings = RegisterSettings.read()
    leaderboard = read_leaderboard(LEADERBOARD)
    best = leaderboard.row(leaderboard.best)
    run_id = json.loads((TRAINING / best.model / "run.json").read_text(encoding="utf-8"))["run_id"]
    client, model_md5 = connect(), md5(MODELS / best.model)
    tags = {
        "model": best.model,
        "model.md5": model_md5,
        "beats_baselines": str(leaderboard.best_beats_baselines).lower(),
        **{f"validation.{name}": f"{value:.4f}" for name, value in best.validation.items()},
        **{f"test.{name}": f"{value:.4f}" for name, value in best.test.items()},
        **_lineage(find_run(client, run_id)),
    }
    generate = GenerateSettings.read(best.model)
    version = register(client, settings.name, MODELS / best.model, generate, run_id=run_id, tags=tags)
    write_json(REGISTERED, asdict(Registered(settings.name, int(version.version), best.model, model_md5, run_id)))
    print(f"{best.model} is version {version.version} of '{settings.name}', the challenger")


def _lineage(training: Run | None) -> dict[str, str]:
    """The training's own; today's where its run is unknown here, whose data DVC says is the same."""
    if training is None:
        return lineage_tags()
    return {tag: value for tag, value in training.data.tags.items() if is_lineage(tag)}
