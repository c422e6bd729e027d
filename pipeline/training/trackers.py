"""Report a training to TensorBoard or W&B besides MLflow, with transformers' own callbacks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from pipeline.experiments import main_state
from pipeline.extras import require_extra


def require_trackers(names: Sequence[str]) -> None:
    """Check that the packages of all trackers are installed.

    Raises:
        UsageError: A package is missing.
    """
    for name in names:
        require_extra(name, user=f"'{name}' under train.report_to in params.yaml")


@contextmanager
def tracker_callbacks(names: Sequence[str], model: str, run_id: str) -> Iterator[list[TrainerCallback]]:
    """Open trackers, and yield the callbacks that report a training to them.

    Both trackers identify the training by its MLflow run, so a resumed training continues its earlier curves.

    Args:
        names: `report_to` in `params.yaml`.
        model: The model's name.
        run_id: The training's MLflow run.
    """
    with ExitStack() as open_trackers:
        callbacks: list[TrainerCallback] = []
        if "tensorboard" in names:
            callbacks.append(_tensorboard(main_state() / "tensorboard" / f"{model}-{run_id}"))
        if "wandb" in names:
            callbacks.append(open_trackers.enter_context(_wandb(model, run_id)))
        yield callbacks


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
        dir=str(main_state()),
        # W&B gets only figures: the stage's console output can contain names of servers and files.
        settings=wandb.Settings(console="off"),
    ):
        yield WandbCallback()
