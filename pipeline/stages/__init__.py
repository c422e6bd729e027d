"""The stages of the pipeline: `pipeline/stages/NAME.py` is the stage NAME of dvc.yaml."""

from __future__ import annotations

import importlib

from pipeline.command import enter_project, explaining_missing_outputs
from pipeline.errors import UsageError
from pipeline.experiments import share_state

STAGES = {
    "sample": "Build the embedded workbook.",
    "ingest": "Read and check the workbook that params.yaml names.",
    "validate": "Check both tables against the suites in expectations/.",
    "merge": "Join every line to its topic.",
    "split": "Divide the examples into train, validation and test.",
    "segment": "Learn where chapters start, and measure it.",
    "settings": "Write the settings that decide each contestant's weights and titles.",
    "baselines": "Score the baselines, which need no training.",
    "collect": "Write the hashes of all contestants' results.",
    "compare": "Write the leaderboard, and copy the best model.",
    "joint": "Score chapters and titles of whole lessons together.",
    "report": "Write the report.",
    "register": "Register the best model as the challenger.",
}
STAGES_OF_A_MODEL = {
    "train": "Fine-tune one model.",
    "predict": "Write one model's titles for the validation and test splits.",
    "score": "Score one model's titles.",
}


def run_stage(name: str = "", *model: str) -> None:
    """Run one stage in the project that holds the working directory.

    Args:
        name: the name of the stage.
        model: for a stage of one model, the name of its entry under `models` in params.yaml.

    Raises:
        UsageError: there is no such stage, the model is missing, or an earlier stage has not run.
        Rejected, TemporaryFailure: as the stage itself says.
    """
    if not ((name in STAGES and not model) or (name in STAGES_OF_A_MODEL and len(model) == 1)):
        raise UsageError(
            "Usage: python -m pipeline STAGE [MODEL]\n"
            f"Stages: {', '.join(STAGES)}\nStages of one model: {', '.join(STAGES_OF_A_MODEL)}"
        )
    enter_project()
    share_state()
    with explaining_missing_outputs():
        importlib.import_module(f"pipeline.stages.{name}").run(*model)
