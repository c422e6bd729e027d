"""Save what an interrupted training resumes from: checkpoints within epochs, and the elapsed time."""

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
    """Save a checkpoint within an epoch when the last one is older than `minutes`."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._last = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._last = time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._last = time.monotonic()
        if state.is_world_process_zero:  # flush the checkpoint to disk, so that it survives a power loss
            sync(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # The trainer saves after an epoch's last step and its validation. A checkpoint before the validation would let
        # a resumed training skip it.
        if not state.epoch.is_integer() and self._is_due(args.device):
            control.should_save = True

    def _is_due(self, device: torch.device) -> bool:
        """Return whether a checkpoint is due by the first process's clock, so that all processes agree."""
        is_due = time.monotonic() - self._last >= self._seconds
        return bool(broadcast(torch.tensor(int(is_due), device=device)))


class Stopwatch(TrainerCallback):
    """Measure the seconds of a training, including those before the checkpoint from which it resumes.

    Args:
        file: The training's own file for the seconds up to its last checkpoint.
    """

    def __init__(self, file: Path) -> None:
        self.seconds = 0.0
        self._file = file
        self._start = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        before = float(self._file.read_text(encoding="utf-8")) if self._file.exists() else 0.0
        self._start = time.monotonic() - before

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._record()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._record()

    def _record(self) -> None:
        self.seconds = time.monotonic() - self._start
        write_text(self._file, str(self.seconds))


def last_complete_checkpoint(folder: Path) -> str | None:
    """Return the latest complete checkpoint of an interrupted training, or None.

    The trainer writes a checkpoint's state file last, so a checkpoint is complete if its state file is valid.
    """
    complete = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json") if _is_json(state)]
    if not complete:
        return None
    last = max(complete, key=lambda checkpoint: int(checkpoint.name.removeprefix("checkpoint-")))
    log.info("resuming from %s", last.name)
    return str(last)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True
