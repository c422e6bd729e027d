"""Trackers that a training reports to besides MLflow: `train.report_to`, through transformers' own callbacks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from pipeline.experiments import main_project
from pipeline.extras import require_extra
from pipeline.files import make_private_folder
from pipeline.paths import STATE


def require_reporters(names: Sequence[str]) -> None:
    """Check that the package of each tracker in `names` is installed.

    Raises:
        UsageError: one is missing.
    """
    for name in names:
        require_extra(name, user=f"'{name}' under train.report_to in params.yaml")


@contextmanager
def reporters(names: Sequence[str], model: str, run_id: str) -> Iterator[list[TrainerCallback]]:
    """The callbacks that report one training to the trackers in `names`.

    Both trackers know the training by its MLflow run, so that a resumed training continues its earlier curves.
    """
    with ExitStack() as open_trackers:
        callbacks: list[TrainerCallback] = []
        if "tensorboard" in names:
            callbacks.append(_tensorboard(_state() / "tensorboard" / f"{model}-{run_id}"))
        if "wandb" in names:
            callbacks.append(open_trackers.enter_context(_wandb(model, run_id)))
        yield callbacks


def _state() -> Path:
    """The state folder of the main project: a temporary copy for an experiment is deleted with its curves."""
    state = main_project() / STATE
    make_private_folder(state)
    return state


def _tensorboard(folder: Path) -> TensorBoardCallback:
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(str(folder)))


@contextmanager
def _wandb(model: str, run_id: str) -> Iterator[WandbCallback]:
    import wandb

    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", "lectern"),
        name=model,
        id=run_id,
        resume="allow",
        dir=str(_state()),
        # The stage's output may name servers and files; W&B gets the figures only.
        settings=wandb.Settings(console="off"),
    ):
        yield WandbCallback()
