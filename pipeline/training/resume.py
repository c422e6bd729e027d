"""What a training that is interrupted leaves, and goes on from."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.files import sync, write_text

log = logging.getLogger(__name__)


class SaveWithinEpochs(TrainerCallback):
    """Leaves a checkpoint also within an epoch, so many minutes after the last one."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._last = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._last = time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._last = time.monotonic()
        if state.is_world_process_zero:  # after a power loss, the training resumes from it
            sync(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # An epoch's last step is saved once it is evaluated: who goes on from its end evaluates it no more.
        if not state.epoch.is_integer() and self._is_time(args.device):
            control.should_save = True

    def _is_time(self, device: torch.device) -> bool:
        """By the first process's clock: all of them save, or none does."""
        over = time.monotonic() - self._last >= self._seconds
        return bool(broadcast(torch.tensor(int(over), device=device)))


class Stopwatch(TrainerCallback):
    """How long a training takes: of one that was interrupted, also what it had taken up to where it is gone on from.

    Args:
        kept: a file of this training's own.
    """

    def __init__(self, kept: Path) -> None:
        self.seconds = 0.0
        self._kept = kept
        self._began = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        before = float(self._kept.read_text(encoding="utf-8")) if self._kept.exists() else 0.0
        self._began = time.monotonic() - before

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._look()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._look()

    def _look(self) -> None:
        self.seconds = time.monotonic() - self._began
        write_text(self._kept, str(self.seconds))


def last_whole_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint of an interrupted run. Its state file is written last: without it whole, it is half."""
    whole = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json") if _is_json(state)]
    if not whole:
        return None
    last = max(whole, key=lambda checkpoint: int(checkpoint.name.removeprefix("checkpoint-")))
    log.info("going on from %s", last.name)
    return str(last)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True
