"""Trackers that a training reports to besides MLflow: `train.report_to`, through transformers' own callbacks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from pipeline.errors import UsageError
from pipeline.experiments import main_state


def require_reporters(names: Sequence[str]) -> None:
    """Check that the package of each tracker in `names` is installed.

    Raises:
        UsageError: one is missing.
    """
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        raise UsageError(
            f"train.report_to in params.yaml names {', '.join(missing)}, which is not installed. In the project's "
            f"folder, run: pip install -e '.[{','.join(missing)}]'"
        )


@contextmanager
def reporters(names: Sequence[str], model: str, run_id: str) -> Iterator[list[TrainerCallback]]:
    """The callbacks that report one training to the trackers in `names`.

    Both trackers know the training by its MLflow run, so that a resumed training continues its earlier curves.
    """
    with ExitStack() as open_trackers:
        callbacks: list[TrainerCallback] = []
        if "tensorboard" in names:
            callbacks.append(_tensorboard(main_state() / "tensorboard" / f"{model}-{run_id}"))
        if "wandb" in names:
            callbacks.append(open_trackers.enter_context(_wandb(model, run_id)))
        yield callbacks


def _is_installed(package: str) -> bool:
    found = find_spec(package)
    # A folder of that name in the working directory has no origin: W&B itself leaves one.
    return found is not None and found.origin is not None


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
        # The stage's output may name servers and files; W&B gets the figures only.
        settings=wandb.Settings(console="off"),
    ):
        yield WandbCallback()
